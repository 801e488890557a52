#!/usr/bin/env bash
# Removes the cluster that up.sh made; with --engine also stops the Docker engine if up.sh started it.
# A cluster named by BERTH_CONTEXT is left alone. The cache stays, so the next up.sh is quick.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

engine=no
case ${1:-} in
'') ;;
--engine) engine=yes ;;
*) die "usage: down.sh [--engine]" ;;
esac

only_one_at_work
if [ -n "${BERTH_CONTEXT:-}" ]; then
  say "BERTH_CONTEXT names a cluster that up.sh did not make: it is left as it is"
elif ! docker info >/dev/null 2>&1; then
  say "no Docker engine runs, so no cluster does"
elif [ -z "$(docker ps -aq --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME")" ]; then
  say "there is no cluster $CLUSTER_NAME"
else
  logged kind-delete kind delete cluster --name "$CLUSTER_NAME" || die "the cluster could not be removed"
  say "removed the cluster $CLUSTER_NAME"
fi
rm -f "$CACHE/cluster.complete"

if [ $engine = yes ]; then "$CLUSTER_DIR/host/engine.sh" stop; fi
