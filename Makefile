# `make help` lists what there is. Everything may be run as root or as an ordinary user.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PILEUS_TOOLS ?= /var/tmp/pileus-tools-$(shell id -u)
# The installer may have put a Go there that is newer than the system's, see scripts/install-tools.sh.
export PATH := $(PILEUS_TOOLS)/go/bin:$(PATH):/usr/local/go/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
DESTDIR ?=

# The packages where goroutines meet; `make test` runs these with the race detector.
RACE ?= ./internal/store/... ./internal/repo/... ./internal/postgres/... ./internal/wal/... \
	./internal/backup/... ./internal/archive/... ./internal/restore/... ./internal/control/... \
	./internal/ledger/... ./internal/access/... ./internal/dbserver/... ./internal/fleet/... ./internal/rdsapi/... ./internal/service/...

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the program, static, as bin/pileus
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pileus ./cmd/pileus

.PHONY: tools
tools: ## what the tests need: PostgreSQL 13 to 18, an S3 server, checkers (asks for sudo if packages are missing)
	scripts/install-tools.sh

.PHONY: demo
demo: ## lose a table under load and get it back, in a scratch folder; needs one PostgreSQL server
	scripts/install-tools.sh demo
	$(MAKE) --no-print-directory build
	@# A server of ours is looked for last, behind those of the system.
	PATH="$$PATH:$$(ls -d "$$PILEUS_TOOLS"/pg/*/bin 2>/dev/null | sort -V | tail -n 1 || true)" bin/pileus demo

.PHONY: quick
quick: ## the short tests, on the newest PostgreSQL that is installed
	go test -short ./...

.PHONY: test
test: tools ## all tests, end to end on every PostgreSQL, and the race detector where goroutines meet
	go vet ./...
	PILEUS_E2E=1 go test -count=1 -timeout 20m ./...
	go test -race -short -count=1 -timeout 20m $(RACE)

.PHONY: test-cumulus
test-cumulus: tools ## the recovery of a deployment of the real Cumulus; fetches 700 MB once
	scripts/install-tools.sh cumulus
	PILEUS_E2E=1 PILEUS_CUMULUS="$$PILEUS_TOOLS/cumulus" go test -count=1 -timeout 10m -run Cumulus ./internal/e2e ./internal/cumulus

.PHONY: race
race: tools ## the short tests of all packages with the race detector
	go test -race -short -count=1 -timeout 20m ./...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, the rules of this repository, shell scripts
	@scripts/install-tools.sh go >/dev/null
	@scripts/lint.sh

.PHONY: vuln
vuln: ## known vulnerabilities in what the program is built from
	@scripts/install-tools.sh go >/dev/null
	@scripts/govulncheck.sh

.PHONY: bench
bench: build ## compare with pg_basebackup and pgBackRest on the same data
	scripts/install-tools.sh system bench
	bench/run

.PHONY: man
man: build ## the manual pages, in bin/man/man1
	rm -rf bin/man
	bin/pileus man bin/man/man1

.PHONY: install
install: man ## program, manual pages and systemd units below PREFIX (/usr/local)
	install -D -m 0755 bin/pileus '$(DESTDIR)$(PREFIX)/bin/pileus'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1' '$(DESTDIR)$(PREFIX)/lib/systemd/system'
	install -m 0644 bin/man/man1/*.1 '$(DESTDIR)$(PREFIX)/share/man/man1/'
	for unit in pileus-wal@.service pileus.service; do \
		sed 's|/usr/local/bin/|$(PREFIX)/bin/|g' packaging/$$unit >'$(DESTDIR)$(PREFIX)/lib/systemd/system/'$$unit; \
	done

.PHONY: clean
clean: ## what was built here; the tools stay
	rm -rf bin dist
