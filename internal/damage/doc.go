// Package damage reads archived WAL and says which transaction did what to which table, so that an operator who has to
// go back knows to where. It needs nothing but wal_level = replica: no logical decoding, nothing set up
// beforehand.
//
// WAL is decoded in lanes of a few segments, on all cores; what lanes found is put together in the
// order of the WAL. Rows are counted from the records of the heap: insertions, updates and deletions of each transaction
// and its subtransactions, for each file. A transaction counts when its commit is read; one that
// aborted, or whose end is not there yet, does not. Memory is bounded by what is open at one time and by
// what is kept (see Options.Keep), not by the range.
//
// Files get their names from pg_class as the backup holds it at which the scan begins, and from the changes
// of pg_class in the WAL since: the scan follows that catalog row by row, from page images and heap records. A
// file whose name is not known that way is shown by its numbers.
//
// A truncated or dropped table shows as files that the commit removes; what pg_class says in the same
// transaction tells the one from the other, and both from a rewrite (VACUUM FULL, CLUSTER, ALTER TABLE), which loses nothing.
//
// Not in the WAL, and so not seen: unlogged and temporary tables.
package damage
