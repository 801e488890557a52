#!/usr/bin/env bash
# Compiles the programs of a Kubernetes node, and what else we need in Go, from modules: each group into a cached folder.
#
#   components.sh build GROUP...   compiles what the cache lacks (groups below; "all" for every one)
#   components.sh where GROUP      prints the folder of a group, whether it exists yet or not
#   components.sh fetch GROUP      one step of a build: writes the group's module, downloads the sources
#   components.sh compile GROUP    the other step: compiles the module into the group's folder
#
# `go install MODULE@VERSION` refuses modules that carry replace directives, so each group gets a
# small module of its own that requires what it compiles. Interrupted builds go on from Go's build
# cache; a folder appears under its final name only when it is complete.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

GROUPS_ALL=(kind kubectl kubernetes containerd cni etcd coredns storage crane oras distribution)

# describe GROUP: sets VERSION, REQUIRE (module@version), PACKAGES (what to compile), TAGS, LDFLAGS.
describe() {
  local kubernetes=k8s.io/kubernetes containerd=github.com/containerd/containerd/v2
  local stamp="-X k8s.io/component-base/version" program
  TAGS="" LDFLAGS="-s -w" PACKAGES=()
  case $1 in
  kind)
    VERSION=$KIND_VERSION
    REQUIRE=sigs.k8s.io/kind@v$VERSION
    PACKAGES=(sigs.k8s.io/kind)
    ;;
  kubernetes | kubectl)
    VERSION=$KUBERNETES_VERSION
    REQUIRE=$kubernetes@v$VERSION
    LDFLAGS+=" $stamp.gitVersion=v$VERSION $stamp.gitMajor=${VERSION%%.*}"
    LDFLAGS+=" $stamp.gitMinor=$(cut -d. -f2 <<<"$VERSION") $stamp.gitTreeState=clean"
    if [ "$1" = kubectl ]; then
      PACKAGES=("$kubernetes/cmd/kubectl")
    else
      for program in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm; do
        PACKAGES+=("$kubernetes/cmd/$program")
      done
    fi
    ;;
  containerd)
    VERSION=$CONTAINERD_VERSION
    REQUIRE=$containerd@v$VERSION
    TAGS=no_btrfs,no_devmapper,no_zfs
    PACKAGES=("$containerd"/cmd/{containerd,ctr,containerd-shim-runc-v2})
    LDFLAGS+=" -X $containerd/version.Version=v$VERSION"
    ;;
  cni)
    VERSION=$CNI_PLUGINS_VERSION
    REQUIRE=github.com/containernetworking/plugins@v$VERSION
    PACKAGES=(github.com/containernetworking/plugins/plugins/{ipam/host-local,main/loopback,main/ptp,meta/portmap})
    ;;
  etcd)
    VERSION=$ETCD_VERSION
    REQUIRE=go.etcd.io/etcd/server/v3@v$VERSION
    PACKAGES=(go.etcd.io/etcd/server/v3)
    ;;
  coredns)
    VERSION=$COREDNS_VERSION
    REQUIRE=github.com/coredns/coredns@v$VERSION
    PACKAGES=(github.com/coredns/coredns)
    ;;
  storage)
    VERSION=$LOCAL_PATH_VERSION
    REQUIRE=github.com/rancher/local-path-provisioner@v$VERSION
    PACKAGES=(github.com/rancher/local-path-provisioner)
    ;;
  crane)
    VERSION=$CRANE_VERSION
    REQUIRE=github.com/google/go-containerregistry@v$VERSION
    PACKAGES=(github.com/google/go-containerregistry/cmd/crane)
    ;;
  oras)
    VERSION=$ORAS_VERSION
    REQUIRE=oras.land/oras@v$VERSION
    PACKAGES=(oras.land/oras/cmd/oras)
    ;;
  distribution)
    VERSION=$DISTRIBUTION_VERSION
    REQUIRE=github.com/distribution/distribution/v3@v$VERSION
    PACKAGES=(github.com/distribution/distribution/v3/cmd/registry)
    ;;
  *) die "components.sh knows no group $1 (known: ${GROUPS_ALL[*]})" ;;
  esac
}

# folder GROUP: where its programs are, a name that follows from everything that makes them.
folder() {
  describe "$1"
  local key
  key=$(printf '%s\n' "$REQUIRE" "${PACKAGES[@]}" "$TAGS" "$LDFLAGS" | digest)
  echo "$CACHE/bin/$1-$VERSION-$(arch)-$key"
}

# workshop GROUP: where its module is while it is being built.
workshop() { echo "$CACHE/work/$(basename "$(folder "$1")")"; }

fetch() {
  describe "$1"
  local dir module=${REQUIRE%@*} staged package
  dir=$(workshop "$1")
  rm -rf "$dir"
  mkdir -p "$dir"
  cd "$dir"
  {
    printf 'module berth.local/%s\n\ngo %s\n\nrequire %s v%s\n' "$1" "$GO_MINIMUM" "$module" "$VERSION"
    if [ "$module" = k8s.io/kubernetes ]; then
      # Its go.mod points these modules into its own source tree: take their releases instead.
      go mod download -json "$REQUIRE" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p' | xargs sed -n 's/^.*\(k8s\.io\/[a-z-]*\) => \.\/staging.*$/\1/p' |
        sort -u | while read -r staged; do
        printf 'replace %s => %s v0.%s\n' "$staged" "$staged" "${VERSION#*.}"
      done
    fi
  } >go.mod
  {
    printf '//go:build tools\n\npackage tools\n\n'
    for package in "${PACKAGES[@]}"; do printf 'import _ "%s"\n' "$package"; done
  } >tools.go
  go list -deps -tags "$TAGS" "${PACKAGES[@]}" >/dev/null
}

compile() {
  describe "$1"
  local final partial dir
  dir=$(workshop "$1")
  final=$(folder "$1")
  partial=$final.partial
  rm -rf "$partial"
  mkdir -p "$partial"
  cd "$dir"
  nice -n 5 go build -trimpath -tags "$TAGS" -ldflags "$LDFLAGS" -o "$partial/" "${PACKAGES[@]}"
  # A package path that ends in a major version names its program after the folder before it.
  if [ "$1" = etcd ] && [ ! -e "$partial/etcd" ]; then mv "$partial/"* "$partial/etcd"; fi
  # Another program may have this name.
  if [ "$1" = distribution ]; then mv "$partial/registry" "$partial/distribution"; fi
  rm -rf "$final"
  mv "$partial" "$final"
  rm -rf "$dir"
}

build() {
  local group began i=0 missing=() fetching=()
  [ "$*" = all ] && set -- "${GROUPS_ALL[@]}"
  for group; do [ -d "$(folder "$group")" ] || missing+=("$group"); done
  [ ${#missing[@]} -gt 0 ] || return 0

  # Groups compile one after the other, which keeps every core busy; the sources of all are fetched
  # meanwhile. Each step is a process of its own, so that `set -e` holds inside it.
  for group in "${missing[@]}"; do
    logged "fetch-$group" "$0" fetch "$group" &
    fetching+=($!)
  done
  for group in "${missing[@]}"; do
    began=$(date +%s)
    wait "${fetching[$i]}" || die "the sources of $group could not be fetched"
    i=$((i + 1))
    describe "$group"
    say "compiling $group $VERSION (log: $LOGS/compile-$group.log)"
    logged "compile-$group" "$0" compile "$group" || die "$group could not be compiled"
    say "compiled $group $VERSION in $(($(date +%s) - began)) s"
  done
}

export CGO_ENABLED=0 GOFLAGS="-mod=mod -buildvcs=false" GOWORK=off GO111MODULE=on
case ${1:-} in
build)
  shift
  build "$@"
  ;;
where) folder "$2" ;;
fetch) fetch "$2" ;;
compile) compile "$2" ;;
*) die "usage: components.sh build GROUP...|all, or components.sh where GROUP" ;;
esac
