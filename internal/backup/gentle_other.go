//go:build !linux

package backup

import "errors"

// lowerPriority fails: elsewhere it is the whole process that has a priority, and
// that is for who starts it.
func lowerPriority() error {
	return errors.New("only Linux has priorities of single threads; start the program with nice")
}
