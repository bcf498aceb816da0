#!/usr/bin/env bash
# govulncheck.sh: look up the known vulnerabilities of what Pileus is built from.
#
# A vulnerability that the code reaches fails. The database is on the network; where that is out of
# reach nothing can be said, so this says so loudly and does not fail.
set -euo pipefail

tools=${PILEUS_TOOLS:-/var/tmp/pileus-tools-$(id -u)}
output=$(mktemp)
trap 'rm -f "$output"' EXIT

status=0
timeout 300 "$tools/bin/govulncheck" ./... >"$output" 2>&1 || status=$?
cat "$output"
# govulncheck's own statuses: 0 nothing found, 3 found, 1 anything else; 124 is timeout's.
case $status in
0) exit 0 ;;
3)
  echo 'govulncheck: VULNERABILITIES FOUND' >&2
  exit 1
  ;;
esac
if [ "$status" -eq 124 ] || grep -q 'fetching vulnerabilities' "$output"; then
  echo '**************************************************************' >&2
  echo '*  vulnerability database unreachable: NOT CHECKED           *' >&2
  echo '**************************************************************' >&2
  exit 0
fi
exit "$status"
