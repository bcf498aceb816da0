package fleet

// Fleet is all of it.
type Fleet struct{}
