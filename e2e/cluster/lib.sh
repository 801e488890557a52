# shellcheck shell=bash disable=SC2034
# Shared by the scripts of this folder: settings, messages with elapsed time, noisy commands sent to
# log files, waiting on conditions, keys for cached artefacts. Sourced, never run.

set -euo pipefail

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
. "$CLUSTER_DIR/versions.sh"

CLUSTER_NAME=berth
CACHE=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
LOGS=$CACHE/logs
ENGINE_DIR=$CACHE/engine
mkdir -p "$CACHE/bin" "$LOGS" "$ENGINE_DIR"

# Tools fetched or compiled by these scripts come first on the path.
TOOLS=$CACHE/tools/bin
mkdir -p "$TOOLS"
case :$PATH: in *":$TOOLS:"*) ;; *) export PATH=$TOOLS:$PATH ;; esac

# Seconds since the outermost script began, whichever script asks.
export BERTH_STARTED=${BERTH_STARTED:-$(date +%s)}
elapsed() { echo $(($(date +%s) - BERTH_STARTED)); }

say() { printf '[%4ds] %s\n' "$(elapsed)" "$*"; }
warn() { printf '[%4ds] warning: %s\n' "$(elapsed)" "$*" >&2; }
die() {
  printf '[%4ds] error: %s\n' "$(elapsed)" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
# elsewhere PROGRAM: where the machine has it, apart from our own tools.
elsewhere() {
  local path=:$PATH:
  path=${path//:"$TOOLS":/:}
  PATH=${path#:} command -v "$1"
}
is_root() { [ "$(id -u)" = 0 ]; }

# version_at_least HAVE WANTED: compares dotted versions.
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# is_debian: whether the machine is Debian or Ubuntu, so that apt packages can be installed.
is_debian() {
  have apt-get && (. /etc/os-release && [[ " ${ID:-} ${ID_LIKE:-} " == *" debian "* || ${ID:-} == ubuntu ]])
}

# heartbeat NAME LOG: says every minute that NAME is still being worked on, until it is killed. It
# waits by reading from a pipe that says nothing, which leaves no `sleep` behind.
heartbeat() {
  local began
  began=$(date +%s)
  exec 3<> <(:)
  until read -rt 60 -u 3; do say "$1: still at it after $(($(date +%s) - began)) s (log: $2)"; done
}

# logged NAME COMMAND...: runs a noisy command with its output in $LOGS/NAME.log, with a heartbeat,
# and shows the end of the log when it fails. `set -e` does not hold inside a shell function run
# this way: give it a program.
logged() {
  local name=$1 log=$LOGS/$1.log code=0 beat
  shift
  heartbeat "$name" "$log" 9>&- &
  beat=$!
  "$@" >"$log" 2>&1 </dev/null || code=$?
  kill "$beat" 2>/dev/null || true
  wait "$beat" 2>/dev/null || true
  [ $code -ne 0 ] || return 0
  {
    printf '[%4ds] error: %s failed with code %s; the end of %s:\n' "$(elapsed)" "$name" "$code" "$log"
    tail -n 30 "$log" | sed 's/^/    /'
  } >&2
  return $code
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds; fails aloud when time is up.
wait_for() {
  local limit=$1 what=$2 began
  shift 2
  began=$(date +%s)
  until "$@" >/dev/null 2>&1; do
    if [ $(($(date +%s) - began)) -ge "$limit" ]; then
      say "gave up waiting for $what after $limit s" >&2
      return 1
    fi
    sleep 0.3
  done
}

# digest: a short name for whatever is on standard input.
digest() { sha256sum | cut -c1-12; }

# only_one_at_work: holds a lock until this script ends, so that two runs do not build or remove the
# same things.
only_one_at_work() {
  exec 9>"$CACHE/lock"
  if ! flock -n 9; then
    say "another run is at work on the cluster: waiting for it"
    flock 9
  fi
}

# The architecture as Go, Debian and Docker name it.
arch() {
  case $(uname -m) in
  x86_64) echo amd64 ;;
  aarch64 | arm64) echo arm64 ;;
  *) die "no cluster for machines of the kind $(uname -m): only amd64 and arm64" ;;
  esac
}
