#!/usr/bin/env bash
# Sees to a running Docker engine, or stops the one that it started.
#
#   engine.sh start   leaves an engine alone that answers; else starts one: by systemd where that runs,
#                     else as a background process with its log in the cache
#   engine.sh stop    stops the engine only if this script started it as a background process
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

record=$ENGINE_DIR/dockerd.started
log=$LOGS/dockerd.log
runc_wrapper=$ENGINE_DIR/runc-bounded

answers() { timeout 10 docker info --format '{{.ServerVersion}}' >/dev/null 2>&1; }

# born PID: when a process started, which tells it from a later one with the same number.
born() { cut -d')' -f2- "/proc/$1/stat" 2>/dev/null | awk '{print $20}'; }

# ours: prints the number of the running dockerd that an earlier run started.
ours() {
  local pid start
  [ -f "$record" ] && read -r pid start <"$record" && [ -n "$start" ] && [ "$(born "$pid")" = "$start" ] && echo "$pid"
}

# A number in a file that an engine left behind when it was killed may by now be another process's,
# and then the engine refuses to start.
clear_stale() {
  local file pid
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    case $(cat "/proc/$pid/comm" 2>/dev/null) in
    dockerd | containerd) ;;
    *) rm -f "$file" ;;
    esac
  done
}

# Several nodes on one kernel need more watches than many machines allow at first.
raise_watch_limits() {
  local name wanted
  while read -r name wanted; do
    [ "$(cat "/proc/sys/fs/inotify/$name")" -lt "$wanted" ] || continue
    (echo "$wanted" >"/proc/sys/fs/inotify/$name") 2>/dev/null ||
      warn "fs.inotify.$name is below $wanted: if pods fail with 'too many open files', raise it (sysctl fs.inotify.$name=$wanted)"
  done <<<"max_user_instances 512
max_user_watches 524288"
}

# check_runtime: a running engine that lacks the wrapper on a machine that needs it is left alone, aloud.
check_runtime() {
  local lacking
  lacking=$("$CLUSTER_DIR/host/runc-bounded" --lacking)
  [ -n "$lacking" ] || return 0
  case $(docker info --format '{{.DefaultRuntime}}') in
  bounded) ;;
  *) warn "this machine lacks $lacking and the Docker engine that runs here was not started for that:
        if nodes fail with 'unable to apply caps', stop that engine and run this again." ;;
  esac
}

start() {
  local lacking arguments=()
  if answers; then
    if [ -n "$(ours)" ]; then say "Docker engine: the one that an earlier run started"; else say "Docker engine: the one that runs here already"; fi
    check_runtime
    raise_watch_limits
    return 0
  fi
  if ! is_root; then
    die "no Docker engine answers. Start it (systemctl start docker, as root), and see that you may use it
        (the group docker, or a rootless engine), then run this again. 'docker info' must work."
  fi
  have dockerd || die "no Docker engine on this machine: install Debian's docker.io (apt-get install docker.io)"
  raise_watch_limits
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine by systemd"
    logged systemctl-start-docker systemctl start docker || die "systemd could not start the Docker engine"
    wait_for 60 "the Docker engine" answers || die "see: journalctl -u docker"
    check_runtime
    return 0
  fi
  lacking=$("$CLUSTER_DIR/host/runc-bounded" --lacking)
  if [ -n "$lacking" ]; then
    say "this machine lacks $lacking: containers are started without it"
    install -m 755 "$CLUSTER_DIR/host/runc-bounded" "$runc_wrapper"
    arguments+=(--add-runtime "bounded=$runc_wrapper" --default-runtime bounded)
  fi
  clear_stale
  say "starting the Docker engine in the background (log: $log)"
  setsid dockerd "${arguments[@]}" >>"$log" 2>&1 </dev/null 9>&- &
  local pid=$!
  echo "$pid $(born $pid)" >"$record"
  if ! wait_for 90 "the Docker engine" sh -c "! [ -d /proc/$pid ] || docker info" || ! answers; then
    tail -n 30 "$log" | sed 's/^/    /' >&2
    die "the Docker engine did not start; its log is $log"
  fi
}

stop() {
  local pid
  pid=$(ours) || pid=
  if [ -z "$pid" ]; then
    say "no Docker engine of ours runs: nothing to stop"
    return 0
  fi
  say "stopping the Docker engine"
  kill "$pid"
  wait_for 60 "the Docker engine to end" sh -c "! [ -d /proc/$pid ]" || die "it still runs as process $pid"
  rm -f "$record"
}

case ${1:-} in
start) start ;;
stop) stop ;;
*) die "usage: engine.sh start|stop" ;;
esac
