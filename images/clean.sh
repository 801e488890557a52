#!/usr/bin/env bash
# Removes the images that build.sh made from the local Docker engine; those in use by containers stay.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/cluster/lib.sh"

if ! docker info >/dev/null 2>&1; then exit 0; fi
mapfile -t images < <(docker images --filter label=dev.berth.image --format '{{.Repository}}:{{.Tag}}' | grep -v '<none>')
[ ${#images[@]} -eq 0 ] || docker rmi "${images[@]}" >/dev/null
