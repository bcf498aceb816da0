// Package pg is PostgreSQL's vocabulary as values: LSNs, timelines, WAL segment
// names, timeline histories, the control file, data pages and their checksums,
// backup_label. It covers PostgreSQL 13 to 18 and does no I/O.
//
// Glossary:
//
//	LSN       byte position in the write-ahead log, printed as HI/LO in hexadecimal
//	timeline  a branch of WAL history; a promotion or a finished recovery starts a new one
//	segment   one WAL file; its name is timeline, log and number, each eight hex digits
//	block     one page (8 KiB) of a relation file
package pg
