// Package demo shows Pileus at its main job on a real server: it starts a
// PostgreSQL of its own in a scratch folder, loads a database shaped like that of
// NASA Cumulus, backs it up and streams its WAL under write load, deletes the
// granules "by mistake", restores to just before, and compares.
package demo
