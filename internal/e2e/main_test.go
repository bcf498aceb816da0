package e2e

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("PILEUS_E2E") == "" {
		fmt.Println("NOTE: the end-to-end tests were NOT run. `make test` runs them (PILEUS_E2E=1).")
		os.Exit(0)
	}
	os.Exit(m.Run())
}
