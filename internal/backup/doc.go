// Package backup takes base backups: of a data directory on this host, read
// directly, or of any server, over the replication protocol. Both feed the same
// workers, which check pages, compare with the parent backup, and fill packs.
//
// Glossary:
//
//	files mode   pg_backup_start, read the files in parallel, pg_backup_stop
//	stream mode  BASE_BACKUP; the server reads the files and sends tar archives
//	parent       an earlier backup whose equal chunks are referred to, not stored again
//	incremental  only pages are read that changed since the parent: in files mode as the archived WAL
//	             says, in stream mode as the server's own summaries of it say
//	damage       a page whose checksum is wrong and that WAL replay will not mend
//	horizon      the end of WAL: a page changed between the backup's start and there is
//	             written whole in the WAL, so replay mends it whatever state it was read in
//
// A page that fails its check is read again, in stream mode through the server's
// pg_read_binary_file; a role that may not call it can see a page called damaged
// that the server was just writing.
//
// Contract: the manifest is written last, when every pack and all WAL that the
// backup needs are durable; a backup that fails or is killed leaves packs that
// nothing names, and no backup. The caller holds repo.LeaseBackup on the cluster,
// with the parent's ID among what the lease keeps.
package backup
