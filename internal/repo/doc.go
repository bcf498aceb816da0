// Package repo is the repository format, version 1: how backups, WAL and keys lie
// as immutable objects in a store. docs/repository-format.md describes the bytes.
//
// Glossary:
//
//	object    a named, framed, hashed, optionally compressed and sealed run of bytes
//	chunk     up to 256 KiB of one file, checked, hashed, compressed, maybe sealed
//	pack      an immutable object of many chunks, in no particular order
//	ref       where one chunk lies (pack, offset, length) and its hash
//	patch     up to 32 changed pages of one file, stored together as one chunk
//	node      the page map of one file: its chunks and the patches over them
//	manifest  one backup, complete in itself: every file with its chunk or node
//	part      a piece of a WAL segment that is not complete yet
//	watermark "all WAL of the server as of this time lies before this LSN"
//	lease     a claim, renewed while its holder lives
//
// Layout below the repository's root:
//
//	repository.json                                format, id, encryption
//	keys/NAME.age                                  the repository key, wrapped
//	packs/XX/ID                                    XX are the ID's first two digits
//	clusters/NAME/cluster                          identity of the cluster
//	clusters/NAME/backups/ID                       manifests
//	clusters/NAME/snapshots/NAME                   names that keep a backup
//	clusters/NAME/wal/TTTTTTTT/LLLLLLLL/SEGMENT    complete WAL segments
//	clusters/NAME/wal/TTTTTTTT.history             timeline histories
//	clusters/NAME/parts/SEGMENT/FROM-TO            the unfinished segment
//	clusters/NAME/watermarks/…                     the position encoded in the key
//	leases/…                                       who is at work
//	prune/…                                        packs marked for deletion
//
// Contract: an object, once visible, is never changed. Packs are durable before
// the manifest that names them; the manifest makes the backup exist. Everything
// read back is checked against its hash before it is handed out.
package repo
