package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pileus/internal/pg"
	"pileus/internal/postgres"
	"pileus/internal/repo"
)

// Plan is what a restore will do. It was checked against the repository and the
// host, and nothing has been written.
type Plan struct {
	Source      string           `json:"source"`
	NewCluster  string           `json:"new_cluster"`
	DataDir     string           `json:"data_directory"`
	Target      Target           `json:"target"`
	Resolution  Resolution       `json:"resolution"`
	WALFrom     pg.LSN           `json:"wal_from"`
	WALTo       pg.LSN           `json:"wal_to"`
	WALBytes    int64            `json:"wal_bytes"`
	Files       int64            `json:"files"`
	Bytes       int64            `json:"bytes"` // of the backup's files
	Disks       []Disk           `json:"disks"`
	Tablespaces []TablespaceMove `json:"tablespaces,omitempty"`
	Settings    []Change         `json:"settings,omitempty"` // that would harm, and what becomes of them
	Owner       string           `json:"owner"`
	Binaries    string           `json:"binaries,omitempty"` // folder of the server programs
	Port        int              `json:"port,omitempty"`     // 0: what the source's configuration says
	SocketDir   string           `json:"socket_dir"`
	Resumes     bool             `json:"resumes,omitempty"` // an unfinished restore of the same request is cleared first
	Notes       []string         `json:"notes,omitempty"`

	request  Request
	id       string
	owner    *postgres.Owner
	binaries postgres.Binaries
	conf     map[string][]byte // the backup's configuration files
	cluster  repo.Cluster      // the source
}

// NewPlan makes the plan: it resolves the target by reading WAL, and checks all that
// can be checked before anything is written. It writes nothing. Errors:
// *WindowError, *AmbiguousError, *TransactionError, ErrNoBackup, ErrNotEmpty,
// ErrNoSpace, ErrIdentifier, ErrTablespace, *postgres.NoBinariesError.
func NewPlan(ctx context.Context, r Request) (Plan, error) {
	p := Plan{}
	if err := r.normalize(); err != nil {
		return p, err
	}
	p.Source, p.NewCluster, p.DataDir, p.Target = r.Source, r.NewCluster, r.DataDir, r.Target
	var err error
	if p.cluster, err = r.Repo.Cluster(ctx, r.Source); err != nil {
		if errors.Is(err, repo.ErrNotFound) {
			err = fmt.Errorf("cluster %s is not in the repository; `pileus list` shows those there are: %w", r.Source, err)
		}
		return p, err
	}
	if r.WAL == nil {
		r.WAL = &RepositoryWAL{Repo: r.Repo, Cluster: p.cluster}
	}
	p.request = r
	r.Report.Stage("reading WAL", 0)
	if p.Resolution, err = p.resolve(ctx); err != nil {
		return p, err
	}
	p.Notes = append(p.Notes, p.Resolution.Notes...)
	p.WALFrom, p.WALTo = p.Resolution.Backup.StartLSN, p.Resolution.EndLSN
	p.WALBytes = int64(p.WALTo - p.WALFrom)
	if p.Tablespaces, err = moves(p.Resolution.Backup, r.Tablespaces, r.DataDir); err != nil {
		return p, err
	}
	p.id = requestID(&p.request, p.Tablespaces)
	r.Report.Stage("checking", 0)
	if err := p.host(ctx); err != nil {
		return p, err
	}
	if err := p.files(ctx); err != nil {
		return p, err
	}
	if err := p.space(); err != nil {
		return p, err
	}
	if p.Settings, err = previewSettings(&p); err != nil {
		return p, err
	}
	if r.Probe != nil {
		if err := r.Probe(ctx, p.owner); err != nil {
			return p, fmt.Errorf("the server, which runs as %s, could not fetch WAL: %w", p.Owner, err)
		}
	}
	return p, nil
}

func (p *Plan) resolve(ctx context.Context) (Resolution, error) {
	r := &p.request
	if r.Target.Kind == ToBackup || r.Target.Kind == ToSnapshot {
		return resolveBackup(ctx, r.Repo, r.Source, r.WAL, r.Target, r.Report)
	}
	cat, err := readCatalog(ctx, r.Repo, r.Source, r.Target.Timeline)
	if err != nil {
		return Resolution{}, err
	}
	return resolve(ctx, cat, r.WAL, r.Target, r.Report)
}

// host checks the directories, the account, the identifier and the programs.
func (p *Plan) host(ctx context.Context) error {
	r := &p.request
	dirs := p.place().roots()
	for i, dir := range dirs {
		flag := "--data-dir"
		if i > 0 {
			flag = "the NEW of --tablespace"
		}
		resumes, err := checkDir(dir, p.id, flag)
		if err != nil {
			return err
		}
		p.Resumes = p.Resumes || resumes && i == 0
	}
	if p.Resumes {
		p.Notes = append(p.Notes, "An unfinished restore of the same request is in "+p.DataDir+": it is cleared and started over.")
	}
	if err := checkIdentifier(ctx, r, p.Resolution, p.Resumes); err != nil {
		return err
	}
	var err error
	if p.owner, err = r.account(); err != nil {
		return err
	}
	p.Owner = p.owner.Name
	for _, dir := range dirs {
		if err := checkEnter(dir, p.owner); err != nil {
			return err
		}
	}
	if r.SocketDir == "" {
		r.SocketDir = socketDir(p.owner)
	}
	if r.Port == 0 && r.Start {
		if r.Port, err = freePort(r.SocketDir); err != nil {
			return err
		}
	}
	p.Port, p.SocketDir = r.Port, r.SocketDir
	major := p.Resolution.Backup.Version / 10000
	p.binaries, err = postgres.FindBinaries(ctx, major, r.BinDirs)
	if err != nil && r.Start {
		return err
	}
	p.Binaries = p.binaries.Dir
	if err != nil {
		p.Notes = append(p.Notes, fmt.Sprintf("The server programs of PostgreSQL %d were not found here; the directory is prepared for a host that has them.", major))
	} else if p.binaries.VersionNum < p.Resolution.Backup.Version {
		p.Notes = append(p.Notes, fmt.Sprintf("The backup was taken from PostgreSQL %s and the programs here are %s, which lack fixes of the newer release.",
			postgres.FormatVersion(p.Resolution.Backup.Version), postgres.FormatVersion(p.binaries.VersionNum)))
	}
	return nil
}

// maxConfFile bounds a configuration file that the plan looks at, in bytes.
const maxConfFile = repo.ChunkSize

// files reads the manifest: sizes for each place, and the configuration files.
func (p *Plan) files(ctx context.Context) error {
	b := p.Resolution.Backup
	m, err := p.request.Repo.OpenManifest(ctx, b.Cluster, b.ID)
	if err != nil {
		return fmt.Errorf("open backup %s: %w", b.ID, err)
	}
	defer m.Close()
	p.conf = map[string][]byte{}
	for e, err := range m.Entries() {
		if err != nil {
			return fmt.Errorf("read the list of files of backup %s: %w", b.ID, err)
		}
		if e.Type != repo.TypeFile {
			continue
		}
		p.Files++
		p.Bytes += e.Size
		if oid, ok := tablespaceOf(e.Path); ok {
			for i := range p.Tablespaces {
				if p.Tablespaces[i].OID == oid {
					p.Tablespaces[i].Bytes += e.Size
				}
			}
		}
		if !isConf(e.Path) || e.Size > maxConfFile {
			continue
		}
		content := make([]byte, 0, e.Size)
		if e.Chunk != nil {
			if content, err = p.request.Repo.ReadChunk(ctx, content, *e.Chunk); err != nil {
				return fmt.Errorf("read %s of backup %s: %w", e.Path, b.ID, err)
			}
		}
		p.conf[e.Path] = content
	}
	return nil
}

func tablespaceOf(path string) (uint32, bool) {
	rest, ok := strings.CutPrefix(path, "pg_tblspc/")
	if !ok {
		return 0, false
	}
	oid, _, ok := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(oid, 10, 32)
	return uint32(n), ok && err == nil
}

// isConf tells whether the file is part of the configuration or may be included by it.
func isConf(path string) bool {
	if strings.HasPrefix(path, outsideConf+"/") {
		return true
	}
	return strings.HasSuffix(path, ".conf") && !strings.HasPrefix(path, "base/") && !strings.HasPrefix(path, "pg_tblspc/")
}

// walSpace bounds what replay keeps in pg_wal at once: it removes segments at
// restart points, the distance of which max_wal_size governs.
const walSpace = 4 << 30

func (p *Plan) space() error {
	segment := p.Resolution.Backup.SegmentSize
	dirs := []string{p.DataDir}
	need := []int64{p.Bytes + min(p.WALBytes, walSpace) + 3*segment}
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			dirs, need = append(dirs, t.New), append(need, t.Bytes)
			need[0] -= t.Bytes
		}
	}
	var err error
	if p.Disks, err = disks(dirs, need); err != nil {
		return err
	}
	var reclaim int64
	if p.Resumes {
		for _, dir := range dirs {
			reclaim += usage(dir)
		}
	}
	return checkDisks(p.Disks, reclaim)
}

// usage is the number of bytes that the files below dir take, as far as they can be seen.
func usage(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			n += st.Blocks * 512
		}
		return nil // what cannot be seen does not count
	})
	return n
}

func (p *Plan) place() *place {
	return &place{dataDir: p.DataDir, spaces: p.Tablespaces, owner: p.owner}
}
