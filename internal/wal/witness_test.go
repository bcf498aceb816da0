package wal_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"pileus/internal/pg"
	"pileus/internal/wal"
)

// TestWitnesses compares the decoder record by record with PostgreSQL's own readers of WAL, on what servers write
// under a workload of all kinds: position, resource manager, transaction, lengths, the record before, each page with its fork
// and image; of heap records what they do, to how many rows and where; of the ends of transactions how they end, and how many
// subtransactions and files go with them. The first record that differs fails it, and so does a kind of record of which the workload
// made none.
//
// Who the witness is depends on what there is to have, as a reader of another major cannot read the WAL:
//
//	15      pg_waldump, from Debian, and the extension pg_walinspect
//	16-18   pg_walinspect, the same code in the server; the packages of scripts/install-tools.sh have no pg_waldump
//	13, 14  NEITHER. Nothing that we could install reads these record by record. Logical decoding (test_decoding) is the
//	        witness instead: it says of rows what was done to them and at which position, and nothing of other records.
//
// A witness that should be there and is not fails the test. Without a server of a major its subtest is skipped and says so, and
// fails where PILEUS_E2E is set.
func TestWitnesses(t *testing.T) {
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			if os.Getenv("PILEUS_E2E") != "" && binDir(major) == "" {
				t.Fatalf("PostgreSQL %d is not installed: scripts/install-tools.sh gets it", major)
			}
			s := newServer(t, major)
			level := "replica"
			if major < 15 {
				level = "logical"
			}
			s.configure(t, "wal_level="+level, "wal_compression=off", "wal_keep_size='4GB'", "track_commit_timestamp=off")
			s.start(t)
			c := s.connect(t)
			from := query[string](t, c, "select pg_current_wal_insert_lsn()::text")
			if major < 15 {
				query[string](t, c, "select pg_create_logical_replication_slot('witness', 'test_decoding')::text")
			}
			everything(t, c)
			to := query[string](t, c, "select pg_current_wal_flush_lsn()::text")
			begin, end := parseLSN(t, from), parseLSN(t, to)

			var inspected []testimony
			var decoding map[pg.LSN]decoded
			if major >= 15 {
				inspected = inspect(t, c, from, to)
			} else {
				decoding = logical(t, c, to)
			}
			c.Close(t.Context())
			s.stop(t, "fast")
			ours, heap := testify(t, s, begin, end)
			if major < 15 {
				compareLogical(t, decoding, heap)
				return
			}
			compare(t, "pg_walinspect", inspected, ours)
			if major == 15 {
				compare(t, "pg_waldump", waldump(t, s, from, end), ours)
			}
		})
	}
}

// testimony is what a reader says of one record, in words that all of them can say.
type testimony struct {
	lsn, prev  pg.LSN
	rmgr       string
	xid        uint32
	total, own int // bytes; own are those without images
	blocks     string
	deed       string // of a heap record or the end of a transaction
}

// kinds are deeds and resource managers that the workload must have made.
var kinds = []string{"INSERT", "INSERT+INIT", "MULTI_INSERT", "MULTI_INSERT+INIT", "UPDATE", "UPDATE+INIT", "HOT_UPDATE", "DELETE", "INPLACE", "LOCK", "HEAP_CONFIRM",
	"COMMIT", "ABORT", "PREPARE", "COMMIT_PREPARED", "ABORT_PREPARED",
	"Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN", "Sequence", "Storage", "XLOG", "Standby", "MultiXact", "RelMap", "Database", "Heap2", "LogicalMessage"}

func compare(t *testing.T, who string, theirs, ours []testimony) {
	t.Helper()
	seen := map[string]int{}
	images := 0
	for i := range min(len(theirs), len(ours)) {
		if theirs[i] != ours[i] {
			t.Fatalf("record %d:\n%s %+v\ndecoded %+v", i, who, theirs[i], ours[i])
		}
		seen[ours[i].rmgr]++
		deed, _, _ := strings.Cut(ours[i].deed, " ")
		seen[deed]++
		images += strings.Count(ours[i].blocks, "FPW")
	}
	if len(theirs) != len(ours) {
		t.Fatalf("%s tells of %d records, decoded %d", who, len(theirs), len(ours))
	}
	for _, k := range kinds {
		if seen[k] == 0 {
			t.Errorf("the workload made no record of %s, so nothing was compared", k)
		}
	}
	if images < 50 {
		t.Errorf("the workload made %d page images only", images)
	}
	t.Logf("%s agrees on %d records with %d page images", who, len(ours), images)
}

// testify is what the decoder says of the records from begin to end, and the changes of rows apart.
func testify(t *testing.T, s *server, begin, end pg.LSN) (all []testimony, heap map[pg.LSN]change) {
	t.Helper()
	control := s.control(t)
	heap = map[pg.LSN]change{}
	_, err := decodeAll(t, s, control, func(r *wal.Record) {
		if r.LSN < begin || r.End > end {
			return
		}
		v := testimony{lsn: r.LSN, prev: r.Prev, rmgr: r.Rmgr.String(), xid: r.Xid, total: int(r.TotalLen), own: int(r.TotalLen)}
		for _, b := range r.Blocks {
			v.own -= len(b.Image)
			v.blocks += fmt.Sprintf("#%d %s %s %d", b.ID, b.File, b.Fork, b.Block)
			if b.HasImage {
				v.blocks += " FPW"
			}
			v.blocks += "\n"
		}
		v.deed = deed(t, r)
		all = append(all, v)
		if h, ok, err := wal.ParseHeap(r); err != nil {
			t.Fatal(err)
		} else if ok && h.Kind != wal.HeapOverwrite {
			heap[r.LSN] = change{h.Kind, h.Rows, h.File}
		}
	})
	var endOfWAL *wal.EndOfWALError
	if err != nil && !errors.As(err, &endOfWAL) {
		t.Fatal(err)
	}
	return all, heap
}

// deed says what a record does as far as the packages above act on it.
func deed(t *testing.T, r *wal.Record) string {
	t.Helper()
	if c, ok, err := wal.ParseCommit(r); err != nil {
		t.Fatal(err)
	} else if ok {
		return fmt.Sprintf("%s %d subtransactions %d files", c.Kind, len(c.SubXids), len(c.Dropped))
	}
	h, ok, err := wal.ParseHeap(r)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return other(r.Rmgr.String(), r.Op())
	}
	name, hot := "", r.Op()&0x70 == 0x40
	switch h.Kind {
	case wal.HeapInsert:
		if name = fmt.Sprintf(" off %d toast %v", h.New.Offset, h.Toast); r.Rmgr == wal.RmgrHeap2 {
			return "MULTI_INSERT" + initialized(r) + fmt.Sprintf(" rows %d", h.Rows)
		}
		return "INSERT" + initialized(r) + name
	case wal.HeapUpdate:
		if name = "UPDATE"; hot {
			name = "HOT_UPDATE"
		}
		return name + initialized(r) + fmt.Sprintf(" off %d new %d", h.Old.Offset, h.New.Offset)
	case wal.HeapDelete, wal.HeapMove, wal.HeapUnmake:
		return fmt.Sprintf("DELETE off %d", h.Old.Offset)
	case wal.HeapOverwrite:
		return fmt.Sprintf("INPLACE off %d", h.New.Offset)
	}
	return fmt.Sprintf("unknown kind %d", h.Kind)
}

func initialized(r *wal.Record) string {
	if r.Blocks[0].WillInit {
		return "+INIT"
	}
	return ""
}

// other names the heap records that change no rows; those of Heap2 were renamed too often to name them.
func other(rmgr string, op uint8) string {
	if rmgr != "Heap" {
		return ""
	}
	return map[uint8]string{0x30: "TRUNCATE", 0x50: "HEAP_CONFIRM", 0x60: "LOCK"}[op&0x70]
}

var (
	offsetIn  = regexp.MustCompile(`^(?:.*?\W)??(?:old_)?off:? (\d+)`)
	newIn     = regexp.MustCompile(`new[ _]off:? (\d+)`)
	flagsIn   = regexp.MustCompile(`flags:? 0x([0-9A-Fa-f]+)`)
	rowsIn    = regexp.MustCompile(`(?:ntuples: (\d+)|^(\d+) tuples)`)
	subxactIn = regexp.MustCompile(`; subxacts:((?: \d+)+)`)
	filesIn   = regexp.MustCompile(`; rels:((?: [a-zA-Z_]+/[^ ;]+)+)`)
)

// told puts PostgreSQL's description of a record into the words of deed.
func told(t *testing.T, rmgr, kind, text string) string {
	t.Helper()
	number := func(re *regexp.Regexp) string {
		m := re.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%s %s: %q has nothing like %s", rmgr, kind, text, re)
		}
		return strings.Join(m[1:], "")
	}
	base, _, _ := strings.Cut(kind, "+")
	switch {
	case rmgr == "Transaction" && slices.Contains([]string{"COMMIT", "ABORT", "PREPARE", "COMMIT_PREPARED", "ABORT_PREPARED"}, kind):
		count := func(re *regexp.Regexp) int {
			if m := re.FindStringSubmatch(text); m != nil {
				return len(strings.Fields(m[1]))
			}
			return 0
		}
		return fmt.Sprintf("%s %d subtransactions %d files", kind, count(subxactIn), count(filesIn))
	case rmgr == "Heap2" && base == "MULTI_INSERT":
		return kind + " rows " + number(rowsIn)
	case rmgr != "Heap":
		return ""
	case base == "INSERT":
		flags, err := strconv.ParseUint(number(flagsIn), 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s off %s toast %v", kind, number(offsetIn), flags&(1<<4) != 0)
	case base == "UPDATE" || base == "HOT_UPDATE":
		return kind + " off " + number(offsetIn) + " new " + number(newIn)
	case base == "DELETE" || base == "INPLACE":
		return kind + " off " + number(offsetIn)
	}
	return kind
}

var (
	inspectedBlock = regexp.MustCompile(`blkref #(\d+): rel (\d+/\d+/\d+) fork (\w+) blk (\d+)( \(FPW)?`)
	dumpedBlock    = regexp.MustCompile(`, blkref #(\d+): rel (\d+/\d+/\d+)(?: fork (\w+))? blk (\d+)( FPW)?`)
	dumped         = regexp.MustCompile(`^rmgr: (\S+) +len \(rec/tot\): +(\d+)/ *(\d+), tx: +(\d+), lsn: (\S+), prev (\S+), desc: (\S+) ?(.*)$`)
)

func blocksIn(re *regexp.Regexp, text string) (out string) {
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		fork := m[3]
		if fork == "" {
			fork = "main"
		}
		out += "#" + m[1] + " " + m[2] + " " + fork + " " + m[4]
		if m[5] != "" {
			out += " FPW"
		}
		out += "\n"
	}
	return out
}

// inspect asks pg_walinspect.
func inspect(t *testing.T, c *pgx.Conn, from, to string) (all []testimony) {
	t.Helper()
	if _, err := c.Exec(t.Context(), "create extension pg_walinspect"); err != nil {
		t.Fatalf("the witness is missing: %v", err)
	}
	rows, err := c.Query(t.Context(), `select start_lsn::text, prev_lsn::text, resource_manager, xid::text::bigint, record_length::int, fpi_length::int, record_type, coalesce(description, ''), coalesce(block_ref, '')
		from pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn)`, from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var lsn, prev, kind, text, blocks string
		var v testimony
		var xid int64
		var images int
		if err := rows.Scan(&lsn, &prev, &v.rmgr, &xid, &v.total, &images, &kind, &text, &blocks); err != nil {
			t.Fatal(err)
		}
		v.lsn, v.prev, v.xid, v.own = parseLSN(t, lsn), parseLSN(t, prev), uint32(xid), v.total-images
		v.blocks, v.deed = blocksIn(inspectedBlock, blocks), told(t, v.rmgr, kind, text)
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// waldump asks pg_waldump, whose output is the same but for the lengths: it prints both.
func waldump(t *testing.T, s *server, from string, end pg.LSN) (all []testimony) {
	t.Helper()
	out, err := exec.Command(filepath.Join(s.bin, "pg_waldump"), "-p", filepath.Join(s.dir, "pg_wal"), "-s", from, "-e", end.String()).Output()
	if err != nil {
		t.Fatalf("the witness failed: %v", err)
	}
	for _, l := range lines(string(out)) {
		m := dumped.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("pg_waldump prints %q", l)
		}
		number := func(i int) int {
			n, err := strconv.ParseUint(m[i], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		all = append(all, testimony{lsn: parseLSN(t, m[5]), prev: parseLSN(t, m[6]), rmgr: m[1], xid: uint32(number(4)), total: number(3), own: number(2),
			blocks: blocksIn(dumpedBlock, m[8]), deed: told(t, m[1], strings.TrimSuffix(m[7], ","), m[8])})
	}
	return all
}

func parseLSN(t *testing.T, s string) pg.LSN {
	t.Helper()
	l, err := pg.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func query[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}
