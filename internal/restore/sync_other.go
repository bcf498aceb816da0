//go:build !linux

package restore

// syncTree makes everything below root durable, file by file.
func syncTree(root string) error { return syncEach(root) }
