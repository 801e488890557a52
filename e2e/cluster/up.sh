#!/usr/bin/env bash
# Brings up the Kubernetes cluster that Berth is tried and tested in, and leaves it alone when it is up.
#
# One of three ways, chosen by itself and said aloud:
#   context    BERTH_CONTEXT names a context of your kubeconfig: that cluster is used, nothing is made
#   published  kind with the node image that its makers publish, where an image registry is reachable
#   built      kind with a node image made here from Go modules and Debian packages
# BERTH_NODE_IMAGE=published|built overrides the choice between the last two.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

complete=$CACHE/cluster.complete

# --- an existing cluster ---------------------------------------------------------------------------

use_context() {
  have kubectl || die "kubectl is missing: install it and run this again"
  kubectl config get-contexts -o name | grep -qxF "$BERTH_CONTEXT" ||
    die "BERTH_CONTEXT names '$BERTH_CONTEXT', which is no context of your kubeconfig (kubectl config get-contexts lists them)"
  say "using the cluster of context $BERTH_CONTEXT, as BERTH_CONTEXT says"
  wait_for 20 "its API server" kubectl --context "$BERTH_CONTEXT" --request-timeout=5s get --raw /readyz ||
    die "the cluster of context $BERTH_CONTEXT does not answer: $(kubectl --context "$BERTH_CONTEXT" --request-timeout=5s get --raw /readyz 2>&1 | tail -n1)"
  say "it answers; its nodes:"
  kubectl --context "$BERTH_CONTEXT" get nodes
}

# --- tools -----------------------------------------------------------------------------------------

# offer PROGRAM FILE: puts a compiled program where the scripts find it, and where everybody does if
# nobody has one yet.
offer() {
  local own=$TOOLS/$1
  ln -sfn "$2" "$own"
  if elsewhere "$1" >/dev/null; then return 0; fi
  if is_root; then
    install -m 755 "$2" "/usr/local/bin/$1"
    say "installed $1 as /usr/local/bin/$1"
  else
    say "$1 is at $own: add $TOOLS to your PATH to use it yourself"
  fi
}

# compiled PROGRAM: takes kind or kubectl from the cache, or compiles it where Go is to be had.
compiled() {
  local folder
  folder=$("$CLUSTER_DIR/node/components.sh" where "$1")
  if [ ! -d "$folder" ]; then
    if ! have go && ! is_root; then return 1; fi
    "$CLUSTER_DIR/host/go.sh" && "$CLUSTER_DIR/node/components.sh" build "$1" || return 1
  fi
  offer "$1" "$folder/$1"
}

kind_is_new_enough() { have kind && version_at_least "$(kind version -q 2>/dev/null)" "$KIND_VERSION"; }

tools() {
  kind_is_new_enough || compiled kind ||
    die "kind $KIND_VERSION or newer is missing. With Go: go install sigs.k8s.io/kind@v$KIND_VERSION; else see kind.sigs.k8s.io."
  have kubectl || compiled kubectl ||
    die "kubectl is missing: see kubernetes.io/docs/tasks/tools, then run this again"
}

# The packages that every way needs; a user who is not root needs only a Docker engine that answers.
packages() {
  local wanted=(docker:docker.io)
  docker info >/dev/null 2>&1 || ! is_root || wanted+=(dockerd:docker.io iptables:iptables)
  if is_root && is_debian; then
    wanted+=(jq:jq skopeo:skopeo docker-registry:docker-registry :ca-certificates)
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] || wanted+=(apparmor_parser:apparmor)
  fi
  "$CLUSTER_DIR/host/packages.sh" "${wanted[@]}"
}

# --- the node image --------------------------------------------------------------------------------

# pull_published: pulls the published image; gives up when nothing of it has come within 20 seconds.
pull_published() {
  local log=$LOGS/pull.log began pull coming=no
  began=$(date +%s)
  docker pull "$PUBLISHED_NODE_IMAGE" >"$log" 2>&1 </dev/null 9>&- &
  pull=$!
  while kill -0 $pull 2>/dev/null; do
    if [ $coming = no ] && grep -qE 'fs layer|Already exists|Download' "$log"; then
      coming=yes
      say "pulling the published node image $PUBLISHED_NODE_IMAGE (log: $log)"
    elif [ $coming = no ] && [ $(($(date +%s) - began)) -ge 20 ]; then
      echo "no answer within 20 seconds" >>"$log"
      kill $pull 2>/dev/null || true
    fi
    sleep 0.3
  done
  wait $pull
}

# choose_image: sets WAY and NODE_IMAGE, and leaves the image in the engine.
choose_image() {
  local choice=${BERTH_NODE_IMAGE:-}
  case $choice in '' | published | built) ;; *) die "BERTH_NODE_IMAGE is published or built, not '$choice'" ;; esac

  WAY=published NODE_IMAGE=$PUBLISHED_NODE_IMAGE
  if [ "$choice" != built ]; then
    if docker image inspect "$NODE_IMAGE" >/dev/null 2>&1; then
      say "way: kind with the published node image, which is here already"
      return 0
    fi
    if [ -n "$choice" ] || ! "$CLUSTER_DIR/node/image.sh" cached; then
      say "asking for the published node image"
      if pull_published; then
        say "way: kind with the published node image"
        return 0
      fi
      [ -z "$choice" ] || die "the published node image cannot be had ($(tail -n1 "$LOGS/pull.log"))"
      say "no image registry is reachable ($(tail -n1 "$LOGS/pull.log" | cut -c1-120))"
    fi
  fi

  WAY=built
  say "way: kind with a node image made here from Go modules and Debian packages"
  if ! "$CLUSTER_DIR/node/image.sh" cached; then
    if ! is_root || ! is_debian; then
      die "making the node image needs root on Debian or Ubuntu: run this as root there,
        or where an image registry is reachable, or name a cluster of yours in BERTH_CONTEXT"
    fi
    [ "$(df --output=avail -k "$CACHE" | tail -n1)" -gt 12000000 ] ||
      warn "less than 12 GB are free for $CACHE: the build may not fit"
    "$CLUSTER_DIR/host/packages.sh" debootstrap:debootstrap pigz:pigz gcc:gcc :libc6-dev
    "$CLUSTER_DIR/host/go.sh"
  fi
  "$CLUSTER_DIR/node/image.sh" build
  NODE_IMAGE=$("$CLUSTER_DIR/node/image.sh" name)
}

# --- the cluster -----------------------------------------------------------------------------------

# config: what kind is told.
config() {
  cat <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: $CLUSTER_NAME
networking:
  podSubnet: 10.244.0.0/16
  disableDefaultCNI: $([ "$WAY" = built ] && echo true || echo false)
nodes:
- role: control-plane
- role: worker
- role: worker
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
YAML
  # Without the capability to lower a process's OOM score, containerd must not try.
  if [ -n "$("$CLUSTER_DIR/host/runc-bounded" --lacking)" ]; then
    cat <<YAML
- |-
  [plugins."io.containerd.grpc.v1.cri"]
    restrict_oom_score_adj = true
YAML
  fi
}

k() { kubectl --context "kind-$CLUSTER_NAME" --request-timeout=5s "$@"; }

nodes() { docker ps -a --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME" "$@"; }
identity() { nodes -q --no-trunc | sort | digest; }

# booted: the nodes and when each was started, a line each.
booted() { nodes -q | xargs docker inspect --format '{{slice .Name 1}} {{.State.StartedAt}}'; }

# all_since MOMENT: reads lines of a node's name and a time; succeeds when there are lines and each time is
# after MOMENT and after that node was started.
all_since() {
  awk -v since="$1" '
    NR == FNR { booted[$1] = substr($2, 1, 19); next }
    { count++; if (NF < 2 || substr($2, 1, 19) < since || substr($2, 1, 19) < booted[$1]) late++ }
    END { exit !(count && !late) }' <(booted) -
}

# healthy: three nodes are ready, and names, volumes and the API are served. The conditions in the API are
# not enough: they go on as they were for a while after a node has died or been started again, so each node
# must have reported, and each pod of the system must have been started, since then.
healthy() {
  [ "$(k get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -c True)" = 3 ] &&
    k get leases -n kube-node-lease -o jsonpath='{range .items[*]}{.metadata.name} {.spec.renewTime}{"\n"}{end}' |
    all_since "$(date -u -d '45 seconds ago' +%Y-%m-%dT%H:%M:%S)" &&
    system_pods kube-system 8 && system_pods local-path-storage 1
}

# system_pods NAMESPACE COUNT: at least so many pods are there, and all of them are ready.
system_pods() {
  local pods
  pods=$(k get pods -n "$1" -o jsonpath='{range .items[*]}{.spec.nodeName} {.status.containerStatuses[0].state.running.startedAt} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}')
  [ "$(grep -c 'True$' <<<"$pods")" -ge "$2" ] && ! grep -qv 'True$' <<<"$pods" && all_since 0 <<<"$pods"
}

# recovered: succeeds when the three nodes that are there are well, or get well when they are given time
# or are started again.
recovered() {
  local patience=$1 stopped
  stopped=$(nodes --filter status=exited --format '{{.Names}}' | sort | xargs)
  if [ -n "$stopped" ]; then
    say "nodes of the cluster were stopped; starting $stopped"
    # shellcheck disable=SC2086
    docker start $stopped >/dev/null || return 1
  fi
  k version >/dev/null 2>&1 || kind export kubeconfig --name "$CLUSTER_NAME" >/dev/null 2>&1 || true
  if healthy 2>/dev/null; then return 0; fi
  say "the cluster is not well: giving it up to $patience s"
  if wait_for "$patience" "the cluster to be well" healthy; then return 0; fi
  [ "$patience" -ge 60 ] || return 1
  say "starting its nodes again"
  # shellcheck disable=SC2046
  docker restart $(nodes -q) >/dev/null && wait_for 120 "the cluster to be well" healthy
}

# repair: succeeds when the cluster that is there is well or could be made well; else removes what is there.
repair() {
  local count patience=75
  count=$(nodes -q | wc -l)
  [ "$count" -gt 0 ] || return 1
  if [ "$count" -ne 3 ]; then
    say "a cluster is there with $count of 3 nodes"
    patience=0
  elif [ ! -f "$complete" ] || [ "$(cat "$complete")" != "$(identity)" ]; then
    say "a cluster is there that these scripts did not finish"
    patience=15
  fi
  if [ $patience -gt 0 ] && recovered $patience; then
    identity >"$complete"
    return 0
  fi
  say "removing it to make it anew"
  logged kind-delete kind delete cluster --name "$CLUSTER_NAME" || die "the broken cluster could not be removed"
  return 1
}

create() {
  local began settings code=0
  began=$(date +%s)
  rm -f "$complete"
  settings=$(mktemp "$CACHE/kind.XXXXXX")
  config >"$settings"
  say "making the cluster: one control plane, two workers (log: $LOGS/kind-create.log)"
  logged kind-create kind create cluster --config "$settings" --image "$NODE_IMAGE" --retain || code=$?
  rm -f "$settings"
  if [ $code -ne 0 ]; then
    kind export logs --name "$CLUSTER_NAME" "$LOGS/kind-failed" >/dev/null 2>&1 || true
    kind delete cluster --name "$CLUSTER_NAME" >/dev/null 2>&1 || true
    die "kind could not make the cluster; what its nodes logged is in $LOGS/kind-failed"
  fi
  say "waiting until nodes, name service and storage are ready"
  if ! wait_for 180 "the cluster to be well" healthy; then
    { k get nodes && k get pods -A -o wide; } >&2 || true
    die "the cluster is up but not well; look at it with kubectl, or remake it: down.sh, then up.sh"
  fi
  identity >"$complete"
  say "made the cluster in $(($(date +%s) - began)) s"
}

# sweep: removes what a killed build left behind.
sweep() {
  awk -v work="$CACHE/rootfs/work." 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
  rm -rf --one-file-system "$CACHE"/{node,rootfs,tools}/work.* "$CACHE"/{node,rootfs,bin}/*.partial "$CACHE"/kind.??????
}

# --- all of it -------------------------------------------------------------------------------------

if [ -n "${BERTH_CONTEXT:-}" ]; then
  use_context
  exit 0
fi

only_one_at_work
sweep

packages
"$CLUSTER_DIR/host/engine.sh" start
if [ -n "$(nodes -q)" ]; then tools; fi
if repair; then
  say "the cluster is up"
  made_of=$(docker inspect --format '{{.Config.Image}}' "$CLUSTER_NAME-control-plane")
  case $made_of in
  "$PUBLISHED_NODE_IMAGE" | "$("$CLUSTER_DIR/node/image.sh" name)") ;;
  *) warn "it was made of $made_of, which is not what these scripts make now: down.sh and up.sh renew it" ;;
  esac
else
  choose_image
  tools
  create
fi
say "context kind-$CLUSTER_NAME: $(k version -o json 2>/dev/null | sed -n '/serverVersion/,$s/.*"gitVersion": "\(.*\)".*/Kubernetes \1/p'), $(k get nodes --no-headers | wc -l) nodes. Try: kubectl --context kind-$CLUSTER_NAME get nodes"
