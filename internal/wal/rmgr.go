package wal

import "fmt"

// RmgrID is a resource manager: the part of the server that wrote a record.
type RmgrID uint8

// Resource managers, the same in PostgreSQL 13 to 18 (rmgrlist.h).
const (
	RmgrXLOG RmgrID = iota
	RmgrTransaction
	RmgrStorage
	RmgrCLOG
	RmgrDatabase
	RmgrTablespace
	RmgrMultiXact
	RmgrRelMap
	RmgrStandby
	RmgrHeap2
	RmgrHeap
	RmgrBtree
	RmgrHash
	RmgrGin
	RmgrGist
	RmgrSequence
	RmgrSPGist
	RmgrBRIN
	RmgrCommitTs
	RmgrReplicationOrigin
	RmgrGeneric
	RmgrLogicalMessage
)

// firstCustomRmgr is the first of those that extensions may bring, from 15 on.
const firstCustomRmgr RmgrID = 128

func (id RmgrID) valid(major int) bool {
	return id <= RmgrLogicalMessage || major >= 15 && id >= firstCustomRmgr
}

// RmgrSet is a set of resource managers.
type RmgrSet [4]uint64

// Rmgrs makes a set.
func Rmgrs(ids ...RmgrID) (s RmgrSet) {
	for _, id := range ids {
		s[id/64] |= 1 << (id % 64)
	}
	return s
}

// Has tells whether id is in the set.
func (s *RmgrSet) Has(id RmgrID) bool { return s[id/64]>>(id%64)&1 != 0 }

// String is the name that pg_waldump prints.
func (id RmgrID) String() string {
	names := [...]string{
		"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby", "Heap2", "Heap",
		"Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
	}
	if int(id) < len(names) {
		return names[id]
	}
	return fmt.Sprintf("custom%03d", uint8(id))
}
