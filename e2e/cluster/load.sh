#!/usr/bin/env bash
# Puts images of the local Docker engine onto every node of the cluster: load.sh IMAGE...
# A node that has the same image already is left alone.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -gt 0 ] || die "usage: load.sh IMAGE..."
if [ -n "${BERTH_CONTEXT:-}" ] && [ "$BERTH_CONTEXT" != "kind-$CLUSTER_NAME" ]; then
  die "images cannot be put onto the nodes of context $BERTH_CONTEXT from here: push them ($*)
        to a registry that its nodes can pull from, and set those names in the manifests"
fi
nodes=$(docker ps --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME" --format '{{.Names}}' | sort)
[ -n "$nodes" ] || die "no cluster runs: up.sh makes it"

# full_name IMAGE: the name under which containerd keeps it.
full_name() {
  local name=$1 first=${1%%/*}
  case $name in
  */*) [[ $first == *[.:]* || $first == localhost ]] || name=docker.io/$name ;;
  *) name=docker.io/library/$name ;;
  esac
  [[ ${name##*/} == *:* ]] || name=$name:latest
  echo "$name"
}

# The mark that an image on a node carries once it has been loaded: the id that Docker knows it by.
mark=berth.image-id

# load NODE IMAGE...: loads what the node lacks. In the node containerd's own client does the work.
load() {
  local node=$1 image id lacking=()
  shift
  for image; do
    id=${ids[$image]}
    [ -n "$(docker exec "$node" ctr -n k8s.io images ls -q "name==$(full_name "$image"),labels.\"$mark\"==$id")" ] ||
      lacking+=("$image")
  done
  [ ${#lacking[@]} -gt 0 ] || return 0
  docker save "${lacking[@]}" | docker exec -i "$node" ctr -n k8s.io images import --digests - >/dev/null
  for image in "${lacking[@]}"; do
    docker exec "$node" ctr -n k8s.io images label "$(full_name "$image")" "$mark=${ids[$image]}" >/dev/null
  done
  say "loaded onto $node: ${lacking[*]}"
}

declare -A ids
for image; do
  ids[$image]=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null) ||
    die "the Docker engine has no image $image: build it first"
done

waiting=()
for node in $nodes; do
  load "$node" "$@" &
  waiting+=($!)
done
for one in "${waiting[@]}"; do
  wait "$one" || die "not every node could take the images"
done
say "every node has: $*"
