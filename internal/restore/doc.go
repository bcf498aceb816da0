// Package restore recovers a cluster to a chosen moment in a new data directory:
// it resolves the target, plans, writes the data directory, recovers, promotes.
//
// Glossary:
//
//	target      what was asked for: a time, LSN, transaction, restore point, snapshot, or the latest state
//	path        one timeline with its ancestors; the WAL that is replayed lies on it
//	stop record the last WAL record that is replayed; every target becomes one before anything is written
//	window      from the end of the oldest usable backup to the end of what the repository is known to hold
//	marker      pileus-restore.json, in every directory of an unfinished restore
//
// A restore goes through these stages, and its marker names the one it is in:
//
//	NewPlan ──▶ writing ──▶ written ──▶ recovering ──▶ verifying ──▶ opening ──▶ done (no marker)
//	              │            │            │              │             │
//	              └────────────┴────────────┴──────────────┴─▶ failed    └─▶ opening
//
// NewPlan only reads. Run may be killed at any point: the same request, run again,
// finds the marker of its own, clears what is there, and starts over; or, once the
// cluster is as planned and may be in use, opens it. The control file is written
// last, so no unfinished directory can be started.
//
// Contract: nothing is written into a directory that holds anything else than the
// marker's own restore, nor over the tablespaces of another cluster. A target that
// the WAL does not reach without a gap is refused by NewPlan. Every byte is checked
// against its hash before it is written. Recovery is told to stop at a record that
// was seen, so that the server itself refuses to promote when WAL runs out earlier.
//
// Memory: Options.Workers × 2 spans of 4 MiB, a window of 32768 references
// (4 MiB), and the page maps of the files of one window.
package restore
