// Package recovery is the runbook: one command for the page of manual steps that brings a database back.
//
//	preflight → halt → drain → fence → wal → restore → compare → validate → cutover → resume → report
//
// A run is one execution of it. Whatever a run finds before it changes something, and whatever it did, is an
// entry of its journal before the next thing happens; the journal is outside the database that is recovered.
// Every step can be asked whether it is done already, so a run that was killed goes on where it was, and
// can be undone until cut-over.
//
//	planned ──► running ──► done
//	              │  ▲
//	              ▼  │ resume
//	           stopped ──► aborting ──► aborted
//
// A run stops when a step fails, when a person has to decide (approve), and when it was told to (pause). Unknown
// remote state is never taken for success: what is not known stops the run, and can be looked at again.
//
// Clusters are reached through the RDS API alone, by the SDK of AWS: pointed at `pileus serve` this recovers
// plain PostgreSQL, pointed at AWS it recovers Aurora.
package recovery
