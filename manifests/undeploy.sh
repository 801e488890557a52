#!/usr/bin/env bash
# Deletes every Registry, so that each is taken down as its deletionPolicy says, then the operator and all of its
# namespace. What Registries kept (claims under deletionPolicy Retain) stays.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/cluster/lib.sh"
cd "$CLUSTER_DIR/../.."

have kubectl || die "kubectl is missing: see kubernetes.io/docs/tasks/tools"
context=$("$CLUSTER_DIR/context.sh")
k() { kubectl --context "$context" "$@"; }
k --request-timeout=10s get --raw /readyz >/dev/null 2>&1 || die "the cluster of context $context does not answer"

if k get crd registries.berth.dev >/dev/null 2>&1; then
  # Only the operator removes the finalizer that Registries carry.
  k delete registries.berth.dev --all --all-namespaces --timeout=180s || {
    k get registries.berth.dev --all-namespaces
    die "not every Registry is gone. Is the operator running? Nothing else was removed."
  }
fi
k delete -k manifests/default --ignore-not-found --timeout=180s >/dev/null || die "not everything is gone"
kept=$(k get persistentvolumeclaims --all-namespaces -l app.kubernetes.io/managed-by=berth-operator --no-headers 2>/dev/null)
[ -z "$kept" ] || say "kept with their images, as deletionPolicy Retain says:"$'\n'"$kept"
say "Berth is gone from context $context"
