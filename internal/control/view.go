package control

import (
	"context"
	"errors"
	"fmt"

	"pileus/internal/archive"
	"pileus/internal/repo"
)

// ClusterView is what the repository says about one cluster.
type ClusterView struct {
	Name       string          `json:"name"`
	Configured bool            `json:"configured"` // in pileus.yaml
	Identity   *repo.Cluster   `json:"identity,omitempty"`
	Backups    []BackupView    `json:"backups"`
	Snapshots  []repo.Snapshot `json:"snapshots"`
	Window     archive.Window  `json:"window"`
	Receiver   *archive.Status `json:"receiver,omitempty"` // last status written on this host
	Problems   []string        `json:"problems,omitempty"`
}

// BackupView is one backup and what keeps it.
type BackupView struct {
	repo.Backup
	Snapshots []string `json:"snapshots,omitempty"`
	Problem   string   `json:"problem,omitempty"` // why it cannot be used, if it cannot
}

// View tells what the repository holds: of one cluster, or of all if name is empty.
func (d *Deployment) View(ctx context.Context, name string) ([]ClusterView, error) {
	var views []ClusterView
	seen := map[string]bool{}
	for c, err := range d.Repo.Clusters(ctx) {
		if c.Name == "" && err != nil {
			return nil, err
		}
		if name != "" && c.Name != name {
			continue
		}
		seen[c.Name] = true
		v := ClusterView{Name: c.Name, Backups: []BackupView{}, Snapshots: []repo.Snapshot{}}
		_, v.Configured = d.Config.Clusters[c.Name]
		if err == nil {
			v.Identity = &c
			err = d.fill(ctx, &v)
		}
		if err != nil {
			if !errors.Is(err, repo.ErrDamaged) {
				return nil, err
			}
			v.Problems = append(v.Problems, err.Error())
		}
		views = append(views, v)
	}
	for _, n := range d.Config.ClusterNames() {
		if !seen[n] && (name == "" || n == name) {
			views = append(views, ClusterView{Name: n, Configured: true, Backups: []BackupView{}, Snapshots: []repo.Snapshot{},
				Problems: []string{"nothing of it is in the repository yet: run `pileus wal receive " + n + "` and `pileus backup " + n + "`"}})
		}
	}
	if len(views) == 0 && name != "" {
		_, _, err := d.cluster(name)
		return nil, err
	}
	return views, nil
}

func (d *Deployment) fill(ctx context.Context, v *ClusterView) error {
	kept := map[string][]string{}
	for s, err := range d.Repo.Snapshots(ctx, v.Name) {
		if err != nil {
			return err
		}
		v.Snapshots = append(v.Snapshots, s)
		kept[s.Backup] = append(kept[s.Backup], s.Name)
	}
	for b, err := range d.Repo.Backups(ctx, v.Name) {
		bv := BackupView{Backup: b, Snapshots: kept[b.ID]}
		if err != nil {
			if !errors.Is(err, repo.ErrDamaged) {
				return err
			}
			bv.Problem = err.Error()
		}
		v.Backups = append(v.Backups, bv)
	}
	var err error
	if v.Window, err = archive.RestorableWindow(ctx, d.Repo, *v.Identity); err != nil {
		return err
	}
	v.Receiver, err = archive.ReadStatus(d.Config.StateDir, v.Name)
	return err
}

// Snapshots lists the snapshots of one cluster, or of all if name is empty.
func (d *Deployment) Snapshots(ctx context.Context, name string) ([]repo.Snapshot, error) {
	out := []repo.Snapshot{}
	for c, err := range d.Repo.Clusters(ctx) {
		if err != nil {
			return nil, err
		}
		if name != "" && c.Name != name {
			continue
		}
		for s, err := range d.Repo.Snapshots(ctx, c.Name) {
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// BackupDetail is one backup, with its files if they were asked for.
type BackupDetail struct {
	repo.Backup
	FileList []FileView `json:"file_list,omitempty"`
}

// FileView is one file or folder of a backup.
type FileView struct {
	Path string        `json:"path"`
	Type repo.FileType `json:"type"`
	Mode uint32        `json:"mode"`
	Size int64         `json:"size"`
}

// FindBackup looks a backup up by its ID in all clusters.
func (d *Deployment) FindBackup(ctx context.Context, id string, files bool) (BackupDetail, error) {
	for c, err := range d.Repo.Clusters(ctx) {
		if err != nil {
			return BackupDetail{}, err
		}
		b, err := d.Repo.Backup(ctx, c.Name, id)
		if errors.Is(err, repo.ErrNotFound) {
			continue
		} else if err != nil {
			return BackupDetail{}, err
		}
		out := BackupDetail{Backup: b}
		if files {
			out.FileList, err = d.files(ctx, b)
		}
		return out, err
	}
	return BackupDetail{}, &ConfigError{fmt.Errorf("no backup has the ID %q; `pileus list` shows those there are", id)}
}

func (d *Deployment) files(ctx context.Context, b repo.Backup) ([]FileView, error) {
	m, err := d.Repo.OpenManifest(ctx, b.Cluster, b.ID)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var out []FileView
	for e, err := range m.Entries() {
		if err != nil {
			return nil, err
		}
		out = append(out, FileView{Path: e.Path, Type: e.Type, Mode: e.Mode, Size: e.Size})
	}
	return out, nil
}
