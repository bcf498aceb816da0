// Package lint checks the rules of this repository that no general tool knows: which
// package may import which, how long a file may be, and what libraries never do. It
// runs as a test, so that `go test ./...` refuses what breaks them.
//
// A rule is a function from one parsed file to its complaints. The order of the
// packages is in layers.go and nowhere else.
package lint
