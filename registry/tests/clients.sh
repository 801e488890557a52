#!/usr/bin/env bash
# Brings the clients that the registry's tests push and pull with, then runs a command that finds them.
#
#   clients.sh COMMAND...
#
# As root on Debian or Ubuntu, what is missing is installed: skopeo, buildah and containerd from Debian's packages, crane
# compiled from its Go module into the cache of e2e/cluster. Elsewhere this says what is missing, and tests without
# their client say so and are skipped. BERTH_TEST_CLIENTS=all asks for all of them: then nothing may be missing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../e2e/cluster/lib.sh"

wanted=(skopeo buildah containerd ctr crane)

missing() { for program in "${wanted[@]}"; do have "$program" || echo "$program"; done; }

bring() {
  "$CLUSTER_DIR/host/packages.sh" skopeo:skopeo buildah:buildah containerd:containerd ctr:containerd || return 1
  if have crane; then return 0; fi
  "$CLUSTER_DIR/host/go.sh" && "$CLUSTER_DIR/node/components.sh" build crane || return 1
  ln -sfn "$("$CLUSTER_DIR/node/components.sh" where crane)/crane" "$TOOLS/crane"
}

if [ -n "$(missing)" ] && is_root && is_debian; then bring || warn "not every client could be installed"; fi
lacking=$(missing | xargs)
if [ -n "$lacking" ]; then
  [ "${BERTH_TEST_CLIENTS:-}" != all ] || die "BERTH_TEST_CLIENTS=all asks for clients that are missing: $lacking"
  warn "tests with these clients are skipped: $lacking (install them, or run this as root on Debian or Ubuntu)"
fi
exec "$@"
