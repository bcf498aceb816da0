// Package archive keeps write-ahead log in the repository: it receives, pushes
// and fetches it, and tells which moments it covers.
//
// Glossary:
//
//	spool       received WAL on this host's disk, on its way to the repository
//	part        a piece of the unfinished segment in the repository
//	durable     in the repository, for good
//	gap         WAL that is missing although later WAL is there
//	watermark   proof that nothing was committed between two times
//
// The life of a receiver's connection:
//
//	connect ──► find position ──► stream ──► end of timeline ──► stream the next
//	   ▲             │                │
//	   └── backoff ◄─┴── any error ◄──┘       WAL was removed: gap, go on from the slot
//
// Contract: a flush position that is reported to a server, and success that is
// reported to archive_command, are promises that the WAL is durable; only the
// documented bounds that keep the database itself alive break the second, loudly.
package archive
