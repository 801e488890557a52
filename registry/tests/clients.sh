#!/usr/bin/env bash
# Brings the clients that the registry's tests push and pull with, then runs a command that finds them.
#
#   clients.sh COMMAND...
#
# As root on Debian or Ubuntu, what is missing is installed: skopeo, buildah, containerd and docker-registry (another
# registry to replicate from and to) from Debian's packages, crane, oras and distribution (that registry's version 3)
# compiled from their Go modules into the cache of e2e/cluster; that much works wherever there is Go. Elsewhere this says
# what is missing, and tests without their client say so and are skipped. BERTH_TEST_CLIENTS=all asks for all of them: then
# nothing may be missing.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../e2e/cluster/lib.sh"

packaged=(skopeo buildah containerd ctr docker-registry)
compiled=(crane oras distribution)

# ours PROGRAM: what we compile of it, in the version that we want.
ours() { echo "$("$CLUSTER_DIR/node/components.sh" where "$1")/$1"; }

# there PROGRAM: whether the machine has it, or we have compiled the version that we want.
there() { elsewhere "$1" >/dev/null || { [ -x "$TOOLS/$1" ] && [ "$(readlink "$TOOLS/$1")" = "$(ours "$1")" ]; }; }
missing() { for program; do there "$program" || echo "$program"; done; }

install_packages() {
  "$CLUSTER_DIR/host/packages.sh" skopeo:skopeo buildah:buildah containerd:containerd ctr:containerd \
    docker-registry:docker-registry
}

# compile PROGRAM...: as up.sh does it, which finds a Go, or gets one as root.
compile() {
  "$CLUSTER_DIR/host/go.sh" && "$CLUSTER_DIR/node/components.sh" build "$@" || return 1
  local program
  for program; do ln -sfn "$(ours "$program")" "$TOOLS/$program" || return 1; done
}

if [ -n "$(missing "${packaged[@]}")" ] && is_root && is_debian; then
  install_packages || warn "the packages could not be installed"
fi
mapfile -t programs < <(missing "${compiled[@]}")
if [ ${#programs[@]} -gt 0 ] && { have go || { is_root && is_debian; }; }; then
  only_one_at_work
  compile "${programs[@]}" || warn "these could not be compiled: ${programs[*]}"
fi

still=$(missing "${packaged[@]}" "${compiled[@]}" | xargs)
if [ -n "$still" ]; then
  [ "${BERTH_TEST_CLIENTS:-}" != all ] || die "BERTH_TEST_CLIENTS=all asks for clients that are missing: $still"
  warn "tests with these clients are skipped: $still (install them, or run this as root on Debian or Ubuntu)"
fi
# The lock ends here.
exec "$@" 9>&-
