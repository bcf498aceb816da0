package pg

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Names of the files that turn a copied data directory into a backup to be recovered.
const (
	BackupLabelFile   = "backup_label"
	TablespaceMapFile = "tablespace_map"
)

// BackupLabel is the content of backup_label: it tells recovery where to start.
type BackupLabel struct {
	Start           LSN        // redo point of the backup's first checkpoint
	StartFile       string     // name of the WAL segment that holds Start
	Checkpoint      LSN        // that checkpoint's record
	Method          string     // "streamed", or "pg_start_backup" for an exclusive backup
	From            string     // "primary" or "standby"
	StartTime       string     // as the server wrote it, in its log_timezone
	Label           string     // free text given by who took the backup
	StartTimeline   TimelineID // zero: the server did not say
	IncrementalFrom LSN        // 17 on, zero in a full backup: such a backup cannot be started as it is
	IncrementalTLI  TimelineID // with IncrementalFrom
}

// ParseBackupLabel reads a backup_label file, or a backup history file, whose
// further lines are disregarded. Format: build_backup_content in PostgreSQL's
// xlogbackup.c. The two LSNs are required, as they are by recovery.
func ParseBackupLabel(content []byte) (BackupLabel, error) {
	var b BackupLabel
	seen := map[string]bool{}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			key, value = strings.TrimSuffix(line, ":"), ""
		}
		if seen[key] {
			continue // a label of several lines can imitate later keys; the first is the server's
		}
		seen[key] = true
		if err := b.set(key, value); err != nil {
			return BackupLabel{}, fmt.Errorf("backup label, line %q: %w", line, err)
		}
	}
	if b.Start == 0 || b.Checkpoint == 0 {
		return BackupLabel{}, fmt.Errorf("backup label is incomplete: it has no START WAL LOCATION or no CHECKPOINT LOCATION")
	}
	return b, nil
}

func (b *BackupLabel) set(key, value string) (err error) {
	switch key {
	case "START WAL LOCATION":
		lsn, file, ok := strings.Cut(value, " (file ")
		name, closed := strings.CutSuffix(file, ")")
		if !ok || !closed || !IsSegmentName(name) {
			return fmt.Errorf("expected an LSN and a segment, as in 0/2000028 (file 000000010000000000000002)")
		}
		b.StartFile = name
		b.Start, err = ParseLSN(lsn)
	case "CHECKPOINT LOCATION":
		b.Checkpoint, err = ParseLSN(value)
	case "BACKUP METHOD":
		b.Method = value
	case "BACKUP FROM":
		b.From = value
	case "START TIME":
		b.StartTime = value
	case "LABEL":
		b.Label = value
	case "START TIMELINE":
		b.StartTimeline, err = parseTimeline(value)
	case "INCREMENTAL FROM LSN":
		b.IncrementalFrom, err = ParseLSN(value)
	case "INCREMENTAL FROM TLI":
		b.IncrementalTLI, err = parseTimeline(value)
	}
	return err
}

// CompleteLabel is the content of backup_label for a backup that was put together from an incremental
// one: without the lines for which the server would refuse to start from it.
func CompleteLabel(content string) string {
	var b strings.Builder
	for line := range strings.Lines(content) {
		if !strings.HasPrefix(line, "INCREMENTAL FROM LSN: ") && !strings.HasPrefix(line, "INCREMENTAL FROM TLI: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func parseTimeline(s string) (TimelineID, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a timeline", s)
	}
	return TimelineID(n), nil
}

// Render is the file's content as the server writes it.
func (b BackupLabel) Render() []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "START WAL LOCATION: %s (file %s)\n", b.Start, b.StartFile)
	fmt.Fprintf(&w, "CHECKPOINT LOCATION: %s\n", b.Checkpoint)
	fmt.Fprintf(&w, "BACKUP METHOD: %s\n", b.Method)
	fmt.Fprintf(&w, "BACKUP FROM: %s\n", b.From)
	fmt.Fprintf(&w, "START TIME: %s\n", b.StartTime)
	fmt.Fprintf(&w, "LABEL: %s\n", b.Label)
	if b.StartTimeline != 0 {
		fmt.Fprintf(&w, "START TIMELINE: %d\n", b.StartTimeline)
	}
	if b.IncrementalFrom != 0 {
		fmt.Fprintf(&w, "INCREMENTAL FROM LSN: %s\n", b.IncrementalFrom)
		fmt.Fprintf(&w, "INCREMENTAL FROM TLI: %d\n", b.IncrementalTLI)
	}
	return w.Bytes()
}

// TablespaceMapping is one line of tablespace_map: recovery makes the link
// pg_tblspc/OID to Path.
type TablespaceMapping struct {
	OID  OID
	Path string // absolute directory; any bytes
}

// ParseTablespaceMap reads a tablespace_map file. Format: read_tablespace_map
// in PostgreSQL's xlogrecovery.c; one "OID path" a line, where a backslash makes
// the next byte part of the path.
func ParseTablespaceMap(content []byte) ([]TablespaceMapping, error) {
	var maps []TablespaceMapping
	var line []byte
	escaped := false
	for _, c := range content {
		switch {
		case escaped:
			line, escaped = append(line, c), false
		case c == '\\':
			escaped = true
		case c == '\n' || c == '\r':
			if len(line) == 0 {
				continue
			}
			m, err := parseTablespaceLine(string(line))
			if err != nil {
				return nil, err
			}
			maps, line = append(maps, m), line[:0]
		default:
			line = append(line, c)
		}
	}
	if len(line) > 0 || escaped {
		return nil, fmt.Errorf("tablespace map ends within a line: %q", line)
	}
	return maps, nil
}

func parseTablespaceLine(line string) (TablespaceMapping, error) {
	id, path, _ := strings.Cut(line, " ")
	oid, err := strconv.ParseUint(id, 10, 32)
	if err != nil || oid == 0 || path == "" {
		return TablespaceMapping{}, fmt.Errorf("tablespace map: expected an OID and a path, found %q", line)
	}
	return TablespaceMapping{OID: OID(oid), Path: path}, nil
}

// RenderTablespaceMap is the file's content as the server writes it.
func RenderTablespaceMap(maps []TablespaceMapping) []byte {
	escape := strings.NewReplacer(`\`, `\\`, "\n", "\\\n", "\r", "\\\r")
	var w bytes.Buffer
	for _, m := range maps {
		fmt.Fprintf(&w, "%d %s\n", m.OID, escape.Replace(m.Path))
	}
	return w.Bytes()
}
