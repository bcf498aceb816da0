package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The messages inside CopyData of a base backup from PostgreSQL 15 on
// (PostgreSQL documentation, "Streaming Replication Protocol", BASE_BACKUP):
//
//	n  archive name, zero byte, tablespace path, zero byte     a new archive begins
//	m                                                          the manifest begins
//	d  bytes                                                   of the archive or manifest
//	p  done i64 big-endian                                     progress in bytes
type baseFrame struct {
	kind    byte
	archive string // of n
	data    []byte // of d
	done    int64  // of p
}

func parseBaseFrame(b []byte) (baseFrame, error) {
	if len(b) == 0 {
		return baseFrame{}, errors.New("empty message in a base backup")
	}
	f := baseFrame{kind: b[0]}
	body := b[1:]
	switch f.kind {
	case 'n':
		name, rest, ok := bytes.Cut(body, []byte{0})
		if !ok || len(name) == 0 || !bytes.HasSuffix(rest, []byte{0}) {
			return f, errors.New("a base backup's archive has no name")
		}
		f.archive = string(name)
	case 'm':
	case 'd':
		f.data = body
	case 'p':
		if len(body) < 8 {
			return f, errors.New("a base backup's progress message is too short")
		}
		f.done = int64(binary.BigEndian.Uint64(body))
	default:
		return f, fmt.Errorf("unknown message %q in a base backup", f.kind)
	}
	return f, nil
}

// archiveOID reads base.tar as 0 and 16390.tar as 16390.
func archiveOID(name string) (uint32, error) {
	if name == "base.tar" {
		return 0, nil
	}
	stem, ok := strings.CutSuffix(name, ".tar")
	oid, err := strconv.ParseUint(stem, 10, 32)
	if !ok || err != nil || oid == 0 {
		return 0, fmt.Errorf("the server sent an archive with the name %q", name)
	}
	return uint32(oid), nil
}

// frame reads one message of a framed copy. It returns archive bytes, or none
// when the message was of another kind; pending and copying tell which.
func (b *BaseBackup) frame() ([]byte, error) {
	msg, err := b.r.receive(b.ctx)
	if err != nil {
		return nil, err
	}
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		f, err := parseBaseFrame(m.Data)
		if err != nil {
			return nil, err
		}
		switch f.kind {
		case 'n':
			b.pending = f.archive
		case 'm':
			return nil, errors.New("the server sent a manifest that was not asked for")
		case 'd':
			if b.current == nil {
				return nil, errors.New("the server sent data before the first archive")
			}
			return f.data, nil
		}
		return nil, nil
	case *pgproto3.CopyDone:
		b.copying = false
		return nil, nil
	}
	return nil, fmt.Errorf("unexpected message %T in a base backup", msg)
}
