#!/usr/bin/env bash
# Prints the name of the kubectl context of the cluster that Berth is tried and tested in.
set -euo pipefail
echo "${BERTH_CONTEXT:-kind-berth}"
