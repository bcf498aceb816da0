// Package postgres speaks to PostgreSQL servers, versions 13 to 18: it finds their
// programs, creates, starts, stops and promotes them, runs administrative SQL, and
// carries the replication protocol (WAL streams, base backups, slots). It knows
// nothing about storage: what it reads it hands on.
//
// The parts:
//
//	Conn           one administrative SQL session: Info, StartBackup, StopBackup, slots, restore points
//	ReplConn       one physical replication session: IdentifySystem, slots, StartWAL, BaseBackup
//	WALStream      a running START_REPLICATION: XLogData, Keepalive, EndOfTimeline
//	BaseBackup     a running BASE_BACKUP: one tar archive for each tablespace
//	Binaries       the server programs of one installation
//	Instance       a data directory, and the server that may run on it
//	Conf           postgresql.conf with all that it includes, and what in it would harm a copy
//
// Rules that hold everywhere in the package:
//
//   - A password comes from Options.Password, the PGPASSWORD variable, a passfile or the
//     connection string; it is never put into an argument list, a log or an error.
//   - A connection, a stream and an instance belong to one goroutine at a time unless its
//     comment says otherwise.
//   - Server programs run as the owner of the data directory: PostgreSQL refuses root.
//     The environment they get is built from nothing, so no secret of ours reaches them.
package postgres
