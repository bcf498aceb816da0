package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"filippo.io/age"

	"pileus/internal/progress"
	"pileus/internal/repo"
	"pileus/internal/store"
)

// Verify checks the repository: one cluster, or all of it if cluster is empty.
func (d *Deployment) Verify(ctx context.Context, cluster string, readData float64, rep progress.Reporter) (repo.VerifyReport, error) {
	if cluster != "" {
		if _, err := d.Repo.Cluster(ctx, cluster); errors.Is(err, repo.ErrNotFound) {
			return repo.VerifyReport{}, &ConfigError{fmt.Errorf("cluster %s is not in the repository", cluster)}
		} else if err != nil {
			return repo.VerifyReport{}, err
		}
	}
	return repo.Verify(ctx, d.Repo, repo.VerifyOptions{Cluster: cluster, ReadData: readData, Workers: d.Config.WorkerCount(),
		Progress: rep, Seed: uint64(time.Now().UnixNano())})
}

// PruneRequest is what a prune is to be.
type PruneRequest struct {
	Grace  time.Duration
	DryRun bool
}

// Prune removes what retention does not keep. Clusters that are in the
// repository and not in the configuration are left alone.
func (d *Deployment) Prune(ctx context.Context, q PruneRequest, rep progress.Reporter) (repo.PrunePlan, error) {
	if q.Grace < 0 {
		return repo.PrunePlan{}, &ConfigError{errors.New("--grace cannot be negative")}
	}
	return repo.Prune(ctx, d.Repo, repo.PruneOptions{Now: time.Now(), Grace: q.Grace, DryRun: q.DryRun, Progress: rep,
		Retention: func(cluster string) time.Duration { return d.Config.Clusters[cluster].Retention }})
}

// KeyRequest is a way into the repository: a passphrase or recipients.
type KeyRequest struct {
	Name       string
	Passphrase string
	Recipients []age.Recipient
}

// Keys lists the ways into the repository.
func (d *Deployment) Keys(ctx context.Context) ([]repo.KeySlotInfo, error) {
	return d.Repo.KeySlots(ctx)
}

// AddKey adds a way into the repository.
func (d *Deployment) AddKey(ctx context.Context, q KeyRequest) error {
	slot := repo.KeySlot{Name: q.Name, Recipients: q.Recipients}
	if q.Passphrase != "" {
		var err error
		if slot, err = repo.PassphraseSlot(q.Name, q.Passphrase); err != nil {
			return &ConfigError{err}
		}
	}
	err := d.Repo.AddKeySlot(ctx, slot)
	if errors.Is(err, store.ErrExists) {
		return &ConfigError{fmt.Errorf("key %s exists already", q.Name)}
	}
	return err
}

// RemoveKey closes a way into the repository.
func (d *Deployment) RemoveKey(ctx context.Context, name string) error {
	err := d.Repo.RemoveKeySlot(ctx, name)
	if errors.Is(err, repo.ErrNotFound) {
		return &ConfigError{err}
	}
	return err
}
