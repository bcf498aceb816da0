// Package control is what Pileus does, put together from the engine: protect a
// cluster, take a backup or a snapshot, tell what can be restored, restore. The
// commands call it, and so will the service.
package control
