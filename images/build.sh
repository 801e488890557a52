#!/usr/bin/env bash
# Builds the images berth-operator and berth-registry from the sources here: programs linked statically, in images from
# scratch. Needs no network once cargo has the dependencies.
#
# Each image is named by its content, so that a cluster rolls out exactly what changed; the names are left in
# target/images.env. The tag `dev` is the latest build.
set -euo pipefail
# shellcheck source=SCRIPTDIR/../e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/cluster/lib.sh"
cd "$CLUSTER_DIR/../.."

prefix=${BERTH_IMAGE_PREFIX:-}
# Bytes; no image is larger.
limit=30000000

# compile: leaves the static programs in $programs.
compile() {
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  programs=target/$host/release
  say "compiling for $host, which takes some minutes the first time"
  # The target is named, so that static linking does not apply to procedural macros.
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo build --release --locked --target "$host" --target-dir target -p operator -p registry
}

# image NAME VARIABLE: makes the image unless it is there already, and adds its name to target/images.env.
image() {
  local name=$1 variable=$2 tag full size
  tag=$(cat "$programs/$name" images/Dockerfile | digest)
  full=$prefix$name:$tag
  docker image inspect "$full" >/dev/null 2>&1 ||
    logged "image-$name" docker build --file images/Dockerfile --target "$name" --tag "$full" \
      --label "org.opencontainers.image.version=$version" --label "dev.berth.image=$name" target/images ||
    die "$full could not be built"
  docker tag "$full" "$prefix$name:dev"
  size=$(docker image inspect --format '{{.Size}}' "$full")
  say "$full: $((size / 1000000)).$((size % 1000000 / 100000)) MB"
  [ "$size" -le $limit ] || die "$full is larger than $((limit / 1000000)) MB"
  echo "$variable=$full" >>target/images.env.partial
}

have cargo || die "Rust is missing: install 1.90 or newer, see https://rustup.rs; with Docker alone see the Dockerfile"
have cc || die "a C compiler is missing: install gcc and the C library's headers (Debian: apt-get install gcc libc6-dev)"
[[ $(rustc -vV) == *host:*-linux-* ]] || die "this machine does not make programs for Linux: see the Dockerfile"
have docker || die "docker is missing: install it, or run 'make cluster', which does that as root on Debian and Ubuntu"
docker info >/dev/null 2>&1 || die "no Docker engine answers: start it, or run 'make cluster', which starts one"

compile
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# A context of these files alone: no builder has to look at the whole checkout.
rm -rf target/images target/images.env.partial
mkdir -p target/images
cp "$programs"/berth-{operator,registry} target/images
image berth-operator BERTH_OPERATOR_IMAGE
image berth-registry BERTH_REGISTRY_IMAGE
mv target/images.env.partial target/images.env
