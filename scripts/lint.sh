#!/usr/bin/env bash
# lint.sh: every check of the source that runs nothing of it. Reports all complaints, then fails.
set -euo pipefail

tools=${PILEUS_TOOLS:-/var/tmp/pileus-tools-$(id -u)}
failed=0

# check NAME COMMAND...: a check fails by its status.
check() {
  local name=$1
  shift
  echo "lint: $name"
  "$@" || failed=1
}

formatted() {
  local files
  files=$(gofmt -l cmd internal)
  [ -z "$files" ] || { printf 'not formatted, run gofmt -w:\n%s\n' "$files"; return 1; }
}

shell_scripts() { git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run; }

parsed() {
  local script status=0
  while IFS= read -r -d '' script; do
    bash -n "$script" || status=1
  done < <(shell_scripts)
  return "$status"
}

shellchecked() { shell_scripts | xargs -0 -r shellcheck --severity=warning; }

check gofmt formatted
check 'go vet' go vet ./...
check staticcheck "$tools/bin/staticcheck" ./...
check 'rules of this repository' go test -count=1 ./internal/lint
check 'bash -n' parsed
if command -v shellcheck >/dev/null; then
  check shellcheck shellchecked
else
  echo 'lint: shellcheck is not installed: NOT CHECKED; `make tools` installs it'
  [ -z "${CI:-}" ] || failed=1
fi
exit "$failed"
