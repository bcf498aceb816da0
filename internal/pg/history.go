package pg

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// HistoryEntry says where an ancestor timeline was left.
type HistoryEntry struct {
	Timeline TimelineID
	End      LSN    // the ancestor's WAL counts up to here, exclusive
	Reason   string // free text that the server wrote
}

// History is the ancestry of one timeline, oldest first, as a .history file
// holds it. The timeline itself is not an entry: it has not ended.
type History struct {
	Timeline TimelineID
	Entries  []HistoryEntry
}

// ParseHistory reads the content of tli's .history file. Format: PostgreSQL's
// readTimeLineHistory; one "timeline LSN reason" per line, # starts a comment.
func ParseHistory(tli TimelineID, content []byte) (History, error) {
	h := History{Timeline: tli}
	sc := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return h, fmt.Errorf("history of timeline %d, line %d: expected a timeline and an LSN, found %q", tli, n, line)
		}
		id, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return h, fmt.Errorf("history of timeline %d, line %d: %q is not a timeline", tli, n, f[0])
		}
		end, err := ParseLSN(f[1])
		if err != nil {
			return h, fmt.Errorf("history of timeline %d, line %d: %w", tli, n, err)
		}
		e := HistoryEntry{Timeline: TimelineID(id), End: end, Reason: strings.Join(f[2:], " ")}
		if e.Timeline >= tli {
			return h, fmt.Errorf("history of timeline %d, line %d: names timeline %d, which is not older", tli, n, id)
		}
		if k := len(h.Entries); k > 0 && h.Entries[k-1].Timeline >= e.Timeline {
			return h, fmt.Errorf("history of timeline %d, line %d: timeline %d is out of order", tli, n, id)
		}
		h.Entries = append(h.Entries, e)
	}
	// A recovery that ended before it came to its own timeline's beginning leaves
	// a later line with a smaller LSN: the earlier timelines were left there, too.
	for i := len(h.Entries) - 2; i >= 0; i-- {
		h.Entries[i].End = min(h.Entries[i].End, h.Entries[i+1].End)
	}
	return h, sc.Err()
}

// TimelineAt is the timeline whose WAL holds the byte at lsn on this ancestry.
func (h History) TimelineAt(lsn LSN) TimelineID {
	for _, e := range h.Entries {
		if lsn < e.End {
			return e.Timeline
		}
	}
	return h.Timeline
}

// End is where tli's WAL stops counting on this ancestry: the switch point of
// an ancestor, or ok = false for the timeline itself (no end yet) and for one
// that is no ancestor.
func (h History) End(tli TimelineID) (end LSN, ok bool) {
	for _, e := range h.Entries {
		if e.Timeline == tli {
			return e.End, true
		}
	}
	return 0, false
}

// Contains tells whether tli is this timeline or one of its ancestors.
func (h History) Contains(tli TimelineID) bool {
	if tli == h.Timeline {
		return true
	}
	_, ok := h.End(tli)
	return ok
}
