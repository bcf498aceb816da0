// Package fleet is what `pileus serve` keeps: DB clusters with their instances,
// snapshots, automated backups and groups, in the words of the RDS API and with
// real effects on PostgreSQL servers and the repository. It decides; package
// rdsapi speaks the protocol.
//
// Glossary:
//
//	attached cluster   a PostgreSQL server of somebody else, named in pileus.yaml: its WAL
//	                   is received and backups are taken; it is never stopped or deleted
//	managed cluster    a PostgreSQL server that the fleet created, runs and may delete
//	writer             the server of a managed cluster; the first instance is a name for it
//	reader             a streaming standby; every further instance is one
//	document           the JSON file that holds one resource. Documents are the truth
//	                   about managed clusters: SQLite holds only history
//	operation          what a cluster is being brought to. It is in the document before it
//	                   begins, and after a restart it is done again from the start: every
//	                   operation is idempotent
//
// The states of a managed cluster, with AWS's names:
//
//	              +------------- modifying, renaming, backing-up,
//	              |              resetting-master-credentials <-+
//	              v                                             |
//	creating -> available --------------------------------------+
//	    |         |  ^
//	    v         v  +-- starting <--+
//	 failed    stopping -> stopped --+
//	    |         |           |
//	    +---------+--> deleting --> (gone)
//
// A create or restore that fails ends in failed, with the reason in the events; any
// other operation that fails goes back to where it came from, and says so there.
package fleet
