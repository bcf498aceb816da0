// Package cli is the pileus command: flags, one call, rendering. It decides
// nothing itself.
//
// Exit codes are part of the interface; see exit.go.
package cli
