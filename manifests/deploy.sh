#!/usr/bin/env bash
# Brings the images of the last images/build.sh to the cluster, and installs or upgrades the operator with them.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/cluster/lib.sh"
cd "$CLUSTER_DIR/../.."

have kubectl || die "kubectl is missing: 'make cluster' installs it, or see kubernetes.io/docs/tasks/tools"
[ -f target/images.env ] || die "there are no images: run 'make images' first"
# shellcheck source=/dev/null
. target/images.env
context=$("$CLUSTER_DIR/context.sh")
k() { kubectl --context "$context" "$@"; }
k --request-timeout=10s get --raw /readyz >/dev/null 2>&1 ||
  die "the cluster of context $context does not answer: 'make cluster' brings one up, or name yours in BERTH_CONTEXT"

if [ -n "${BERTH_IMAGE_PREFIX:-}" ]; then
  for image in "$BERTH_OPERATOR_IMAGE" "$BERTH_REGISTRY_IMAGE"; do
    docker push --quiet "$image" || die "$image can't be pushed: log in to its registry, or set another BERTH_IMAGE_PREFIX"
  done
else
  "$CLUSTER_DIR/load.sh" "$BERTH_OPERATOR_IMAGE" "$BERTH_REGISTRY_IMAGE"
fi

# The committed manifests stay as they are; which images is said by an overlay.
mkdir -p target/deploy
cat >target/deploy/kustomization.yaml <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../manifests/default]
patches:
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: berth-operator, namespace: berth-system}
      spec:
        template:
          spec:
            containers:
              - name: operator
                image: $BERTH_OPERATOR_IMAGE
                env:
                  - {name: BERTH_OPERATOR_IMAGE, value: "$BERTH_OPERATOR_IMAGE"}
                  - {name: BERTH_REGISTRY_IMAGE, value: "$BERTH_REGISTRY_IMAGE"}
YAML
k apply -k target/deploy | grep -v ' unchanged$' || true
k wait --for=condition=Established --timeout=60s crd/registries.berth.dev crd/replications.berth.dev crd/repositories.berth.dev >/dev/null
if ! k -n berth-system rollout status deployment/berth-operator --timeout=180s >/dev/null; then
  k -n berth-system get pods
  k -n berth-system logs deployment/berth-operator --tail=20 || true
  die "the operator did not become ready"
fi
say "the operator runs in context $context ($BERTH_OPERATOR_IMAGE)"
