// Package changes tells from write-ahead log which pages of which relations
// changed between two positions, so that a backup need read no others.
//
// It knows the main fork of every relation. Of the others WAL does not tell
// enough: nothing is logged of the free space map, and a record that clears bits of
// the visibility map does not name the page of the map that it changes. They are
// small; read them whole, like the init forks of unlogged relations and every
// file that is not a relation's.
//
// Glossary:
//
//	set        what changed: pages, limits, and whole databases
//	limit      the length in blocks to which a relation was cut, zero where it was
//	           created or dropped; what lies from there on counts as changed
//	database   the files of one database in one tablespace; those of one that was
//	           created, copied or dropped count as changed altogether
//	lane       WAL that one worker decodes, from the start of a segment on
//
// Cutting and writing in any order give the same set, as everything from the limit
// on is in it anyway. So lanes are decoded in parallel and their sets are joined.
//
// Contract: a page that is not in the set has, wherever it was read before the
// range's start and after, the same content but for hint bits. The opposite need not hold. What
// the decoder does not understand, or what leaves no trace in WAL, is an error, never
// silence: see Reason.
//
// Memory: 2 bytes for each changed page, at most 8 KiB for each 512 MiB of a relation
// (16 MiB for 1 TiB, if all of it changed), and some 150 bytes for each relation touched; all of that
// once for each worker while WAL is read.
//
// Sources: walsummarizer.c and basebackup_incremental.c of PostgreSQL 17,
// visibilitymap.c, xlogrecord.h.
package changes
