package config

// nearest returns the candidate that text was most likely meant to be, or "" if
// none is near enough: at most one edit for each three characters, and at least two.
func nearest(text string, candidates []string) string {
	best, limit := "", max(2, len(text)/3)
	for _, candidate := range candidates {
		// A short word is near everything; then more than half of it must be right.
		if d := distance(text, candidate); d <= limit && d*2 < max(len(text), len(candidate)) {
			best, limit = candidate, d-1
		}
	}
	return best
}

// distance is the number of insertions, deletions and replacements of one byte, and
// of swaps of two neighbours, that turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, above[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
