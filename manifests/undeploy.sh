#!/usr/bin/env bash
# Deletes every Repository and Registry, so that each is taken down as its deletionPolicy says, then the operator and all of its
# namespace. What Registries kept (claims under deletionPolicy Retain) stays.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/cluster/lib.sh"
cd "$CLUSTER_DIR/../.."

have kubectl || die "kubectl is missing: see kubernetes.io/docs/tasks/tools"
context=$("$CLUSTER_DIR/context.sh")
k() { kubectl --context "$context" "$@"; }
k --request-timeout=10s get --raw /readyz >/dev/null 2>&1 || die "the cluster of context $context does not answer"

# Replications first, for they use Registries; then Repositories: images that are to go with them are deleted by Registries.
for kind in replications repositories registries; do
  k get crd "$kind.berth.dev" >/dev/null 2>&1 || continue
  # Only the operator removes the finalizer that they carry.
  k delete "$kind.berth.dev" --all --all-namespaces --timeout=360s || {
    k get "$kind.berth.dev" --all-namespaces
    die "not all $kind are gone. Is the operator running? Nothing else was removed."
  }
done
k delete -k manifests/default --ignore-not-found --timeout=180s >/dev/null || die "not everything is gone"
kept=$(k get persistentvolumeclaims --all-namespaces -l app.kubernetes.io/managed-by=berth-operator --no-headers 2>/dev/null)
[ -z "$kept" ] || say "kept with their images, as deletionPolicy Retain says:"$'\n'"$kept"
say "Berth is gone from context $context"
