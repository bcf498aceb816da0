package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"pileus/internal/pg"
	"pileus/internal/store"
)

// Backup is the head of a manifest: all there is to know of a base backup but
// its files.
type Backup struct {
	ID               string            `json:"id"`      // sorts by start time
	Cluster          string            `json:"cluster"` // identifier
	SystemIdentifier uint64            `json:"system_identifier,string"`
	Version          int               `json:"server_version_num"` // for example 150018
	SegmentSize      int64             `json:"wal_segment_size"`   // bytes
	Checksums        bool              `json:"data_checksums"`
	Method           string            `json:"method"` // MethodFiles or MethodStream
	Parent           string            `json:"parent,omitempty"`
	Timeline         pg.TimelineID     `json:"timeline"`
	StartLSN         pg.LSN            `json:"start_lsn"` // redo starts here
	StopLSN          pg.LSN            `json:"stop_lsn"`  // consistent from here on; WAL up to here is needed
	Started          time.Time         `json:"started"`
	Stopped          time.Time         `json:"stopped"`     // server's clock after the end: no commit before StopLSN is later
	CompleteTo       time.Time         `json:"complete_to"` // server's clock before the end: all that was committed by then lies before StopLSN
	Label            string            `json:"backup_label"`
	TablespaceMap    string            `json:"tablespace_map,omitempty"`
	Tablespaces      []Tablespace      `json:"tablespaces,omitempty"`
	Host             string            `json:"host"` // that ran pileus
	DataDirectory    string            `json:"data_directory,omitempty"`
	Damage           []Damage          `json:"damage,omitempty"`
	DamagedPages     int64             `json:"damaged_pages,omitempty"` // all of them; Damage lists the first
	Incremental      bool              `json:"incremental"`             // only pages that changed since Parent were read
	WhyFull          string            `json:"why_full,omitempty"`      // else: why all of them were
	Read             int64             `json:"read,omitempty"`          // bytes of files
	ReadWAL          int64             `json:"read_wal,omitempty"`      // bytes of WAL that told what changed
	Files            int64             `json:"files"`
	Size             int64             `json:"size"`   // bytes of the cluster
	Stored           int64             `json:"stored"` // bytes this backup added to the repository
	PageSize         int               `json:"page_size"`
	DatabaseNames    map[uint32]string `json:"databases,omitempty"`
	Tool             string            `json:"tool"` // version of pileus
}

// How a backup's files were read.
const (
	MethodFiles  = "files"       // directly, on the same host
	MethodStream = "base_backup" // over the replication protocol
)

// Tablespace is one besides pg_default and pg_global.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Name     string `json:"name,omitempty"`
	Location string `json:"location"`
}

// Damage is one page whose checksum was wrong when it was backed up.
type Damage struct {
	Path     string `json:"path"`
	Block    int64  `json:"block"` // within the file
	LSN      pg.LSN `json:"lsn"`   // as the page claims
	Expected uint16 `json:"expected"`
	Found    uint16 `json:"found"`
}

// FileType is what an entry is.
type FileType string

// Types of entries.
const (
	TypeDir  FileType = "d"
	TypeFile FileType = "f"
)

// Entry is one file or folder of a backup. A file's content is in Chunk when it
// fits into one, in the page map that Node points to otherwise; one without
// bytes has neither. A chunk that is all zero is Size with neither Chunk nor Node.
type Entry struct {
	Path  string // slash-separated, relative to the data directory; tablespaces as pg_tblspc/OID/…
	Type  FileType
	Mode  uint32 // permission bits
	Size  int64  // bytes
	Chunk *Ref
	Node  *Ref
	Packs []PackID // that Node's chunks lie in
}

// manifest lines; exactly one field of a line is set.
type manifestLine struct {
	Head *Backup    `json:"backup,omitempty"`
	Pack *PackInfo  `json:"pack,omitempty"`
	File *entryLine `json:"file,omitempty"`
	End  *endLine   `json:"end,omitempty"`
}

type entryLine struct {
	Path  string   `json:"path"`
	Type  FileType `json:"type"`
	Mode  uint32   `json:"mode"`
	Size  int64    `json:"size,omitempty"`
	Chunk *refLine `json:"chunk,omitempty"`
	Node  *refLine `json:"node,omitempty"`
	Packs []int    `json:"packs,omitempty"`
}

type refLine struct {
	Pack   int    `json:"p"` // index into the pack lines
	Offset uint32 `json:"o"`
	Stored uint32 `json:"s"`
	Length uint32 `json:"l"`
	Codec  Codec  `json:"c"`
	Hash   Hash   `json:"h"`
}

type endLine struct {
	Packs int   `json:"packs"`
	Files int64 `json:"files"`
}

func manifestKey(cluster, id string) string { return "clusters/" + cluster + "/backups/" + id }

// WriteManifest makes the backup exist. packs must describe every pack that an
// entry names, and all of them must be durable. Only those named are listed.
func (r *Repository) WriteManifest(ctx context.Context, head Backup, packs []PackInfo, entries []Entry) error {
	table, err := packTable(packs, entries)
	if err != nil {
		return fmt.Errorf("backup %s: %w", head.ID, err)
	}
	head.Files = 0
	for i := range entries {
		if entries[i].Type == TypeFile {
			head.Files++
		}
	}
	err = r.putObject(ctx, manifestKey(head.Cluster, head.ID), KindManifest, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		if err := enc.Encode(manifestLine{Head: &head}); err != nil {
			return err
		}
		// The head has a frame of its own, so that listing backups reads no more.
		if err := w.(*objectWriter).Flush(); err != nil {
			return err
		}
		for i := range table.list {
			if err := enc.Encode(manifestLine{Pack: &table.list[i]}); err != nil {
				return err
			}
		}
		for i := range entries {
			if err := enc.Encode(manifestLine{File: table.line(&entries[i])}); err != nil {
				return err
			}
		}
		return enc.Encode(manifestLine{End: &endLine{Packs: len(table.list), Files: int64(len(entries))}})
	})
	if err != nil {
		return fmt.Errorf("store the manifest of backup %s: %w", head.ID, err)
	}
	return nil
}

type packIndex struct {
	list  []PackInfo
	index map[PackID]int
}

func packTable(packs []PackInfo, entries []Entry) (*packIndex, error) {
	known := make(map[PackID]PackInfo, len(packs))
	for _, p := range packs {
		known[p.ID] = p
	}
	t := &packIndex{index: map[PackID]int{}}
	use := func(path string, id PackID) error {
		if _, ok := t.index[id]; ok {
			return nil
		}
		info, ok := known[id]
		if !ok {
			return fmt.Errorf("%s lies in pack %s, which was not stored", path, id)
		}
		t.index[id] = len(t.list)
		t.list = append(t.list, info)
		return nil
	}
	for i := range entries {
		e := &entries[i]
		ids := e.Packs
		if e.Chunk != nil {
			ids = append(ids[:len(ids):len(ids)], e.Chunk.Pack)
		}
		if e.Node != nil {
			ids = append(ids[:len(ids):len(ids)], e.Node.Pack)
		}
		for _, id := range ids {
			if err := use(e.Path, id); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func (t *packIndex) line(e *Entry) *entryLine {
	l := &entryLine{Path: e.Path, Type: e.Type, Mode: e.Mode, Size: e.Size, Chunk: t.ref(e.Chunk), Node: t.ref(e.Node)}
	for _, p := range e.Packs {
		l.Packs = append(l.Packs, t.index[p])
	}
	return l
}

func (t *packIndex) ref(r *Ref) *refLine {
	if r == nil {
		return nil
	}
	return &refLine{Pack: t.index[r.Pack], Offset: r.Offset, Stored: r.Stored, Length: r.Length, Codec: r.Codec, Hash: r.Hash}
}

// Manifest is an open manifest. Close it.
type Manifest struct {
	Backup
	packs []PackInfo
	next  *manifestLine
	dec   *json.Decoder
	key   string
	io.Closer
}

// OpenManifest opens a backup for reading its files. Absent: ErrNotFound.
func (r *Repository) OpenManifest(ctx context.Context, cluster, id string) (*Manifest, error) {
	key := manifestKey(cluster, id)
	rc, err := r.openObject(ctx, key, KindManifest)
	if err != nil {
		return nil, err
	}
	m := &Manifest{key: key, dec: json.NewDecoder(rc), Closer: rc}
	if err = m.readHead(cluster, id); err == nil {
		err = m.readPacks()
	}
	if err != nil {
		rc.Close()
		return nil, err
	}
	return m, nil
}

func (m *Manifest) readHead(cluster, id string) error {
	line, err := m.line()
	if err != nil {
		return err
	}
	if line.Head == nil {
		return damaged(m.key, "it does not start with the backup")
	}
	if line.Head.ID != id || line.Head.Cluster != cluster {
		return damaged(m.key, "it is the manifest of backup %s of %s", line.Head.ID, line.Head.Cluster)
	}
	m.Backup = *line.Head
	return nil
}

func (m *Manifest) readPacks() error {
	for {
		line, err := m.line()
		if err != nil {
			return err
		}
		if line.Pack == nil {
			m.next = line
			return nil
		}
		m.packs = append(m.packs, *line.Pack)
	}
}

func (m *Manifest) line() (*manifestLine, error) {
	if l := m.next; l != nil {
		m.next = nil
		return l, nil
	}
	var l manifestLine
	if err := m.dec.Decode(&l); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, damaged(m.key, "it has no end")
		}
		return nil, fmt.Errorf("read %s: %w", m.key, err)
	}
	return &l, nil
}

// Packs lists every pack the backup needs.
func (m *Manifest) Packs() []PackInfo { return m.packs }

// Entries yields every file and folder once, in the order written: folders before
// what they hold. The end of the sequence without an error means that the whole
// manifest was read and its hash is right.
func (m *Manifest) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for n := int64(0); ; n++ {
			line, err := m.line()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if line.End != nil {
				if line.End.Files != n || line.End.Packs != len(m.packs) {
					yield(Entry{}, damaged(m.key, "it lacks entries"))
				} else if err := m.dec.Decode(&manifestLine{}); !errors.Is(err, io.EOF) {
					// Reading on to the end is what checks the object's hash.
					yield(Entry{}, fmt.Errorf("read %s: %w", m.key, errors.Join(err, ErrDamaged)))
				}
				return
			}
			if line.File == nil {
				yield(Entry{}, damaged(m.key, "a line is neither file nor end"))
				return
			}
			e, err := m.entry(line.File)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (m *Manifest) entry(l *entryLine) (Entry, error) {
	e := Entry{Path: l.Path, Type: l.Type, Mode: l.Mode, Size: l.Size}
	var err error
	if e.Chunk, err = m.ref(l.Chunk); err != nil {
		return e, err
	}
	if e.Node, err = m.ref(l.Node); err != nil {
		return e, err
	}
	for _, p := range l.Packs {
		if p < 0 || p >= len(m.packs) {
			return e, damaged(m.key, "%s names pack %d of %d", l.Path, p, len(m.packs))
		}
		e.Packs = append(e.Packs, m.packs[p].ID)
	}
	return e, nil
}

func (m *Manifest) ref(l *refLine) (*Ref, error) {
	if l == nil {
		return nil, nil
	}
	if l.Pack < 0 || l.Pack >= len(m.packs) || l.Length > maxPlain || l.Codec > CodecZstd {
		return nil, damaged(m.key, "a reference is out of range")
	}
	return &Ref{Pack: m.packs[l.Pack].ID, Offset: l.Offset, Stored: l.Stored, Length: l.Length, Codec: l.Codec, Hash: l.Hash}, nil
}

// Backup reads the head of one manifest. Absent: ErrNotFound.
func (r *Repository) Backup(ctx context.Context, cluster, id string) (Backup, error) {
	key := manifestKey(cluster, id)
	rc, err := r.openObject(ctx, key, KindManifest)
	if err != nil {
		return Backup{}, err
	}
	defer rc.Close()
	m := &Manifest{key: key, dec: json.NewDecoder(rc)}
	err = m.readHead(cluster, id)
	return m.Backup, err
}

// Backups yields the head of every backup of the cluster, oldest first. One that
// cannot be read is an error with its ID in the head, and does not end the list.
func (r *Repository) Backups(ctx context.Context, cluster string) iter.Seq2[Backup, error] {
	prefix := manifestKey(cluster, "")
	return func(yield func(Backup, error) bool) {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				yield(Backup{}, fmt.Errorf("list backups of %s: %w", cluster, err))
				return
			}
			id := info.Key[len(prefix):]
			b, err := r.head(ctx, cluster, id)
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrNotFound) {
				continue // pruned meanwhile
			}
			b.ID = id
			if !yield(b, err) {
				return
			}
		}
	}
}

// head is Backup, or what is remembered of it.
func (r *Repository) head(ctx context.Context, cluster, id string) (Backup, error) {
	if r.heads == nil {
		return r.Backup(ctx, cluster, id)
	}
	key := manifestKey(cluster, id)
	if known, ok := r.heads.Load(key); ok {
		return known.(Backup), nil
	}
	b, err := r.Backup(ctx, cluster, id)
	if err == nil {
		r.heads.Store(key, b)
	}
	return b, err
}

// NewBackupID makes an ID that sorts by time.
func NewBackupID(now time.Time) string {
	return now.UTC().Format("20060102T150405Z") + "-" + randomHex(3)
}
