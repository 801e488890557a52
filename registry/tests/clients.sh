#!/usr/bin/env bash
# Brings the clients that the registry's tests push and pull with, then runs a command that finds them.
#
#   clients.sh COMMAND...
#
# As root on Debian or Ubuntu, what is missing is installed: skopeo, buildah and containerd from Debian's packages, crane and oras
# compiled from their Go modules into the cache of e2e/cluster. Elsewhere this says what is missing, and tests without
# their client say so and are skipped. BERTH_TEST_CLIENTS=all asks for all of them: then nothing may be missing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../e2e/cluster/lib.sh"

wanted=(skopeo buildah containerd ctr crane oras)
# Those of them that are compiled from Go modules.
compiled=(crane oras)

missing() { for program in "${wanted[@]}"; do have "$program" || echo "$program"; done; }

bring() {
  only_one_at_work
  "$CLUSTER_DIR/host/packages.sh" skopeo:skopeo buildah:buildah containerd:containerd ctr:containerd || return 1
  local program lacking=()
  for program in "${compiled[@]}"; do have "$program" || lacking+=("$program"); done
  [ ${#lacking[@]} -gt 0 ] || return 0
  "$CLUSTER_DIR/host/go.sh" && "$CLUSTER_DIR/node/components.sh" build "${lacking[@]}" || return 1
  for program in "${lacking[@]}"; do
    ln -sfn "$("$CLUSTER_DIR/node/components.sh" where "$program")/$program" "$TOOLS/$program" || return 1
  done
}

if [ -n "$(missing)" ] && is_root && is_debian; then bring || warn "not every client could be installed"; fi
still=$(missing | xargs)
if [ -n "$still" ]; then
  [ "${BERTH_TEST_CLIENTS:-}" != all ] || die "BERTH_TEST_CLIENTS=all asks for clients that are missing: $still"
  warn "tests with these clients are skipped: $still (install them, or run this as root on Debian or Ubuntu)"
fi
# The lock ends here.
exec "$@" 9>&-
