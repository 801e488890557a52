#!/usr/bin/env bash
# Runs a built OCI conformance suite against registries of its own, each on an empty folder and with deletes allowed.
#
#   conformance.sh REGISTRY SUITE RESULTS   the program berth-registry, the suite, a folder for what it reports
#
# The suite is either that of distribution-spec 1.1 (`go test -c`, by Ginkgo) or that of its main branch (`go build`),
# which asks for each version of the specification, and for sparse manifests of a registry that takes them. Fails
# where anything failed, where nothing was tested, and where anything was skipped that could be tested.
set -euo pipefail

registry=$(realpath "$1") suite=$(realpath "$2") results=$(realpath -m "$3")

# Settings of an earlier run must not decide what is tested; filters and log levels of a person may.
unset OCI_CONFIGURATION OCI_ROOT_URL OCI_USERNAME OCI_PASSWORD OCI_VERSION
work=$(mktemp -d)
server=
stop() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
trap 'stop; rm -rf "$work"' EXIT

# serve ARGUMENTS...: starts a registry on a new folder and a free port; sets `address`.
serve() {
  local root line
  root=$(mktemp -d "$work/root.XXXXXX")
  mkfifo "$root.log"
  # Variables that set options of the server are not for this one.
  env -i BERTH_LOG=warn,registry::serve=info "$registry" serve --root "$root" --listen 127.0.0.1:0 --log-format json "$@" 2>"$root.log" &
  server=$!
  exec 4<"$root.log"
  address=
  while [ -z "$address" ] && read -r line <&4; do
    address=$(sed -n '/"listener":"registry"/s/.*"address":"\([^"]*\)".*/\1/p' <<<"$line")
    [ -n "$address" ] || printf '%s\n' "$line" >&2
  done
  [ -n "$address" ] || { echo "the registry did not start" >&2; exit 1; }
  # What it has to say later goes into the results, or it would wait for a reader.
  cat <&4 >>"$reports/registry.log" &
  exec 4<&-
}

failed=0
# run NAME SETTINGS... -- ARGUMENTS OF THE SERVER...: one run of the suite.
run() {
  local name=$1 settings=() code=0 counts
  shift
  while [ "$1" != -- ]; do settings+=("$1") && shift; done
  shift
  reports=$results/$name
  rm -rf "$reports"
  mkdir -p "$reports"
  serve "$@"
  env "${settings[@]//ADDRESS/$address}" OCI_RESULTS_DIR="$reports" OCI_REPORT_DIR="$reports" \
    "$suite" "${flags[@]}" >"$reports/output.txt" 2>&1 || code=$?
  stop
  counts=$(counts "$reports/output.txt")
  printf '%-12s %s\n' "$name" "${counts:-no counts}"
  if [ $code -ne 0 ] || ! [[ $counts =~ ^[1-9][0-9]*\ passed,\ 0\ failed,\ "$skipped"\ skipped ]]; then
    failed=1
    printf '  failed: see %s\n' "$reports/output.txt"
    { problems "$reports/output.txt" || tail -n 20 "$reports/output.txt"; } | head -n 40 | sed 's/^/    /'
  fi
}

cd "$work"
if grep -aq onsi/ginkgo "$suite"; then
  # Two are about registries without pushes, two about such as answer a mount in the other way.
  flags=(-ginkgo.v -ginkgo.no-color) skipped=4
  counts() { sed -n 's/.*-- \([0-9]*\) Passed | \([0-9]*\) Failed | [0-9]* Pending | \([0-9]*\) Skipped.*/\1 passed, \2 failed, \3 skipped/p' "$1"; }
  problems() { grep -E '\[(FAIL|PANICKED)' "$1"; }
  run 1.1 OCI_ROOT_URL=http://ADDRESS OCI_NAMESPACE=one/repository OCI_CROSSMOUNT_NAMESPACE=another/repository \
    OCI_TEST_PULL=1 OCI_TEST_PUSH=1 OCI_TEST_CONTENT_DISCOVERY=1 OCI_TEST_CONTENT_MANAGEMENT=1 \
    OCI_AUTOMATIC_CROSSMOUNT=1 OCI_HIDE_SKIPPED_WORKFLOWS=0 --
else
  flags=() skipped=0
  # count WHAT FILE: the number that the summary gives.
  count() { sed -n "s/^  $1\.*: *\([0-9]*\)\$/\1/p" "$2"; }
  counts() {
    [ -z "$(count Total "$1")" ] ||
      echo "$(count Pass "$1") passed, $(($(count FAIL "$1") + $(count Error "$1"))) failed, $(count Skip "$1") skipped, $(count Disabled "$1") of another version"
  }
  problems() { grep -E ': (FAIL|Error|Skip)$' "$1"; }
  to=(OCI_REGISTRY=ADDRESS OCI_TLS=disabled OCI_REPO1=one/repository OCI_REPO2=another/repository)
  run 1.1 "${to[@]}" OCI_VERSION=1.1 --
  run dev "${to[@]}" OCI_VERSION=dev --
  run dev-sparse "${to[@]}" OCI_VERSION=dev OCI_DATA_SPARSE=true -- --allow-sparse all
fi
exit $failed
