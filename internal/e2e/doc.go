// Package e2e holds the end-to-end tests: the pileus binary against real
// PostgreSQL servers and a real S3 server, compared with an oracle that knows
// which commits must be there. They take minutes and are run by `make test`,
// which sets PILEUS_E2E=1.
package e2e
