// Command runkiller executes a recovery run and kills itself, as by SIGKILL, right after an entry of the journal is durable.
//
//	runkiller CONFIG ENTRIES recover CLUSTER NEW TIME
//	runkiller CONFIG ENTRIES resume RUN
//
// ENTRIES counts from the start of the process; the run ends by itself if it has fewer.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"
	"time"

	"pileus/internal/config"
	"pileus/internal/recovery"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx := context.Background()
	left, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	cfg, err := config.Load(args[0])
	if err != nil {
		return err
	}
	j, err := recovery.OpenJournal(ctx, cfg.StateDir)
	if err != nil {
		return err
	}
	b := recovery.New(recovery.Options{Config: cfg, Journal: j, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Operator: "test", OnEntry: func(recovery.Entry) {
		if left--; left == 0 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}})
	switch args[2] {
	case "recover":
		at, err := time.Parse(time.RFC3339Nano, args[5])
		if err != nil {
			return err
		}
		_, err = b.Recover(ctx, recovery.Request{Cluster: args[3], New: args[4], Target: recovery.Target{Time: at}})
		return err
	case "resume":
		_, err = b.Resume(ctx, args[3], recovery.Choices{})
		return err
	}
	return fmt.Errorf("unknown verb %s", args[2])
}
