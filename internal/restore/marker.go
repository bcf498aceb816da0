package restore

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pileus/internal/pg"
)

// markerName is the file that marks every directory of an unfinished restore.
const markerName = "pileus-restore.json"

// Stage is how far a restore is.
type Stage string

// Stages of a restore, in order.
const (
	StageWriting    Stage = "writing"    // the directory cannot be started
	StageWritten    Stage = "written"    // complete, and not started
	StageRecovering Stage = "recovering" // the server replays
	StageVerifying  Stage = "verifying"  // it was promoted, and nobody can reach it
	StageOpening    Stage = "opening"    // it is as planned; somebody may use it, so it is never cleared
	StageFailed     Stage = "failed"
)

// marker tells whose unfinished restore a directory holds.
type marker struct {
	Tool     string    `json:"tool"` // always "pileus restore"
	Request  string    `json:"request"`
	Stage    Stage     `json:"stage"`
	Failed   string    `json:"failed,omitempty"` // the stage that failed, and why
	Source   string    `json:"source"`
	Cluster  string    `json:"cluster"`
	Target   string    `json:"target"`
	Backup   string    `json:"backup"`
	StopLSN  pg.LSN    `json:"stop_lsn"`
	Started  time.Time `json:"started"`
	DataDir  string    `json:"data_directory"`
	Explains string    `json:"explanation"`
}

// markerTemp is what the marker is called while it is being written.
const markerTemp = markerName + tempSuffix

const markerTool = "pileus restore"

// requestID is the same for two requests that would give the same cluster in the
// same place. The target "latest" may have moved on in between; that is meant.
func requestID(r *Request, spaces []TablespaceMove) string {
	b, err := json.Marshal(struct {
		Repository, Source, New, DataDir string
		Target                           Target
		Start                            bool
		Spaces                           []TablespaceMove
	}{r.Repo.Config().ID, r.Source, r.NewCluster, r.DataDir, r.Target, r.Start, spaces})
	if err != nil { // plain data always marshals
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:32]
}

func readMarker(dir string) (m marker, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if json.Unmarshal(b, &m) != nil || m.Tool != markerTool {
		return m, false, nil // not ours: the directory counts as holding something
	}
	return m, true, nil
}

// mark writes the marker into every directory of the restore.
func (p *place) mark(m marker) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	for _, dir := range p.roots() {
		if err := p.put(dir, markerName, append(b, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// unmark removes the markers: the restore is done. The data directory's goes last.
func (p *place) unmark() error {
	roots := p.roots()
	for i := len(roots) - 1; i >= 0; i-- {
		if err := os.Remove(filepath.Join(roots[i], markerName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove marker: %w", err)
		}
		if err := syncDir(roots[i]); err != nil {
			return err
		}
	}
	return nil
}

// clear removes what an unfinished restore of the same request left, but for the
// markers, which say whose the directories are until the end.
func (p *place) clear(request string) error {
	for _, dir := range p.roots() {
		if err := os.Remove(filepath.Join(dir, markerTemp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			continue
		}
		m, ok, err := readMarker(dir)
		if err != nil {
			return err
		}
		if !ok || m.Request != request {
			return fmt.Errorf("%s: %w", dir, ErrNotEmpty)
		}
		for _, e := range entries {
			if e.Name() == markerName {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("clear what an unfinished restore left: %w", err)
			}
		}
	}
	return nil
}
