// Package progress is how long work tells how far it is. Libraries report;
// who renders it, and how, is decided by the caller.
package progress

// Reporter hears of long work. Its methods may be called concurrently and must
// return at once.
type Reporter interface {
	// Stage begins the next stage of the work, of total bytes; 0 if unknown. The
	// one before has ended.
	Stage(name string, total int64)
	// Add says that n more bytes of the stage are done.
	Add(n int64)
	// Note passes a line that a person should read: something unusual that did
	// not stop the work.
	Note(format string, args ...any)
}

// Silent is a Reporter that drops everything.
type Silent struct{}

// Stage drops its arguments.
func (Silent) Stage(string, int64) {}

// Add drops its argument.
func (Silent) Add(int64) {}

// Note drops its arguments.
func (Silent) Note(string, ...any) {}
