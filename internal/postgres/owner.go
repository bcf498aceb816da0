package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Owner is an operating-system account that server programs run as.
type Owner struct {
	Name   string // "" when the id has no name on this host
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups, GID included
	Home   string
}

// LookupOwner finds an account by its name.
func LookupOwner(name string) (*Owner, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("look up account %q: %w", name, err)
	}
	return ownerOf(u)
}

// CurrentOwner is the account that this process runs as.
func CurrentOwner() (*Owner, error) {
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("look up the current account: %w", err)
	}
	return ownerOf(u)
}

// OwnerOf is the account that path belongs to.
func OwnerOf(path string) (*Owner, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("find the owner: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("find the owner of %s: not known on this system", path)
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) { // usual in containers
		return &Owner{UID: st.Uid, GID: st.Gid, Groups: []uint32{st.Gid}, Home: "/"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the owner of %s: %w", path, err)
	}
	return ownerOf(u)
}

func ownerOf(u *user.User) (*Owner, error) {
	o := &Owner{Name: u.Username, Home: u.HomeDir}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %q has the id %q: %w", u.Username, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %q has the group %q: %w", u.Username, u.Gid, err)
	}
	o.UID, o.GID = uint32(uid), uint32(gid)
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of account %q: %w", u.Username, err)
	}
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			o.Groups = append(o.Groups, uint32(g))
		}
	}
	return o, nil
}

// Credential makes a child process run as the account, or is nil when this
// process already does or may not change accounts.
func (o *Owner) Credential() *syscall.Credential {
	if o == nil || os.Geteuid() != 0 || o.UID == 0 {
		return nil
	}
	return &syscall.Credential{Uid: o.UID, Gid: o.GID, Groups: o.Groups}
}

// Chown gives path, not following a symbolic link, to the account when this
// process may do so; otherwise it does nothing.
func (o *Owner) Chown(path string) error {
	if o == nil || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(o.UID), int(o.GID))
}
