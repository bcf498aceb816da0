// Package wal decodes the write-ahead log of PostgreSQL 13 to 18: it verifies
// every page header and record, and reads from records which blocks they
// change, and when transactions ended. It does no I/O but reading from an
// io.Reader.
//
// WAL is a sequence of pages of 8 KiB, each with a header; segment files hold
// consecutive pages. Records follow one another, aligned to 8 bytes, and run on
// across pages:
//
//	page header  24 bytes; 40 at the start of a segment
//	  0 magic (names the major version)      8 LSN of the page
//	  2 flags                               16 bytes of the first record that
//	  4 timeline                               began on an earlier page
//	  24 system id, 32 segment size, 36 page size: only in the long header
//
//	record header  24 bytes
//	  0 length of the whole record          16 info   17 resource manager
//	  4 transaction                         20 CRC-32C of the rest of the record,
//	  8 LSN of the record before               then of these first 20 bytes
//
// Sources: xlog_internal.h, xlogrecord.h, xlogreader.c, xact.h, pg_control.h.
//
// Glossary:
//
//	record             one change; its LSN is where its header starts
//	resource manager   the part of the server that a record belongs to
//	block reference    a page that a record changes
//	image              a whole page stored in a record, the first time it
//	                   changes after a checkpoint
//	continuation       the part of a record that lies on a later page
//	switch             a record after which the rest of the segment is unused
package wal
