package terraform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// maxComplaint is how much of what terraform says about a failure is passed on, in bytes.
const maxComplaint = 2000

// Read reads a plan: "-" for JSON on stdin, the path of a JSON file, or the path of a saved
// plan. A saved plan is shown by `terraform` or `tofu`, whichever of the two in the PATH can,
// in the plan's folder; or in the current one, if that is where `terraform init` was done.
// Errors are [UnreadableError], except when ctx ends.
func Read(ctx context.Context, path string, stdin io.Reader) (*Plan, error) {
	if path == "-" {
		b, err := readAll(stdin)
		if err != nil {
			return nil, unreadable("read the plan from standard input: %w", err)
		}
		if saved(b) {
			return nil, unreadable("standard input is a saved plan: name its file instead, or pipe the output of `terraform show -json PLAN`")
		}
		return Decode(b)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable("open the plan: %w", err)
	}
	defer f.Close()
	b, err := readAll(f)
	if err != nil {
		return nil, unreadable("read the plan %s: %w", path, err)
	}
	if saved(b) {
		if b, err = show(ctx, path); err != nil {
			return nil, err
		}
	}
	p, err := Decode(b)
	if err != nil {
		return nil, &UnreadableError{fmt.Errorf("%s: %w", path, err)}
	}
	return p, nil
}

// saved: a plan file is a zip archive.
func saved(b []byte) bool { return bytes.HasPrefix(b, []byte("PK\x03\x04")) }

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPlanSize+1))
	if err == nil && len(b) > maxPlanSize {
		err = fmt.Errorf("it is larger than %d MiB", maxPlanSize>>20)
	}
	return b, err
}

// show turns a saved plan into JSON.
func show(ctx context.Context, path string) ([]byte, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, unreadable("find the plan %s: %w", path, err)
	}
	folder := filepath.Dir(absolute)
	if !initialised(folder) && initialised(".") {
		folder = "."
	}
	var failures []error
	for _, name := range []string{"terraform", "tofu"} {
		program, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		b, err := run(ctx, folder, program, "show", "-json", "-no-color", absolute)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("show the plan %s: %w", path, ctx.Err())
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return nil, unreadable("%s is a saved plan, and neither terraform nor tofu is in the PATH to show it: run `terraform show -json PLAN` where it was made, and give its output", path)
	}
	return nil, unreadable("%s is a saved plan that cannot be shown; show it where it was made, after `terraform init`, with the version that made it:\n%w", path, errors.Join(failures...))
}

// initialised tells whether `terraform init` was done in a folder.
func initialised(folder string) bool {
	data := os.Getenv("TF_DATA_DIR")
	if data == "" {
		data = ".terraform"
	}
	if !filepath.IsAbs(data) {
		data = filepath.Join(folder, data)
	}
	_, err := os.Stat(data)
	return err == nil
}

// run returns what a program prints.
func run(ctx context.Context, folder, program string, args ...string) ([]byte, error) {
	var stdout, stderr limited
	stdout.limit, stderr.limit = maxPlanSize, maxComplaint
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "TF_INPUT=0", "CHECKPOINT_DISABLE=1", "TF_LOG=")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s in %s: %w: %s", filepath.Base(program), args[0], folder, err, strings.TrimSpace(stderr.String()))
	}
	if stdout.cut {
		return nil, fmt.Errorf("%s %s: the plan is larger than %d MiB", filepath.Base(program), args[0], maxPlanSize>>20)
	}
	return stdout.Bytes(), nil
}

// limited keeps the first bytes of what is written to it.
type limited struct {
	bytes.Buffer
	limit int
	cut   bool
}

// Write never fails: the program shall not die of its own complaints.
func (l *limited) Write(b []byte) (int, error) {
	room := min(len(b), l.limit-l.Len())
	l.cut = l.cut || room < len(b)
	l.Buffer.Write(b[:room])
	return len(b), nil
}
