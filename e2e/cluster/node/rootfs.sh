#!/usr/bin/env bash
# Makes the base file system of the node image from Debian (or Ubuntu) packages, as a cached archive.
#
#   rootfs.sh build   makes the archive if the cache lacks it
#   rootfs.sh where   prints the archive's name, whether it exists yet or not
#   rootfs.sh make    the work of build: bootstraps and packs
#
# The release is this machine's own, from the mirror, proxies and certificates that its apt uses.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# What a kind node runs: its services, the tools that Kubernetes and kind call, a container runtime,
# and a shell for the pods that make volumes.
PACKAGES=(systemd dbus
  conntrack iptables nftables ebtables iproute2 ethtool socat util-linux mount kmod
  runc libseccomp2 pigz
  bash ca-certificates curl jq procps
  busybox-static)

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
distribution=$(. /etc/os-release && echo "$ID")

archive() {
  local key
  key=$( (echo "${PACKAGES[*]}" && declare -f make) | digest)
  echo "$CACHE/rootfs/$suite-$(arch)-$key.tar.gz"
}

# mirror: where apt on this machine gets the release from, in any format of apt's sources.
mirror() {
  local uri
  # shellcheck disable=SC2016
  uri=$(apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
    awk -F'|' -v suite="$suite" 'tolower($1) ~ /^(debian|ubuntu)$/ && $2 == suite && $3 == "main" { print $4; exit }')
  case $uri in
  mirror+file:*) uri=$(awk '!/^#/ && NF { print $1; exit }' "${uri#mirror+file:}") ;;
  esac
  case $uri in
  http://* | https://* | file:/*) echo "${uri%/}" ;;
  copy:/*) echo "file:${uri#copy:}" ;;
  *) die "apt on this machine has no source for $suite that debootstrap can read (found: '$uri')" ;;
  esac
}

# apt_setting NAME: one setting of apt's configuration.
apt_setting() {
  local value=
  eval "$(apt-config shell value "$1")"
  echo "$value"
}

make() {
  local final work proxy certificates options=()
  final=$(archive)
  mkdir -p "$CACHE/rootfs"
  work=$(mktemp -d "$CACHE/rootfs/work.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf --one-file-system '$work'" EXIT

  # debootstrap downloads with wget, which knows nothing of apt's configuration.
  for scheme in http https; do
    proxy=$(apt_setting "Acquire::$scheme::Proxy")
    case $proxy in '' | DIRECT) ;; *) export "${scheme}_proxy=$proxy" ;; esac
  done
  certificates=$(apt_setting Acquire::https::CAInfo)
  if [ -n "$certificates" ]; then
    export WGETRC=$work/wgetrc
    echo "ca_certificate = $certificates" >"$WGETRC"
  fi

  if [ "$distribution" = ubuntu ]; then options+=("--components=main,universe"); fi
  local names
  names=$(IFS=, && echo "${PACKAGES[*]}")
  debootstrap --variant=minbase --include="$names" "${options[@]}" "$suite" "$work/root" "$(mirror)"

  rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/var/log/* \
    "$work"/root/usr/share/{doc,man,info,locale}/* "$work"/root/usr/lib/udev/hwdb.*
  : >"$work/root/etc/machine-id"
  tar -C "$work/root" --numeric-owner -c . | pigz -1 >"$final.partial"
  mv "$final.partial" "$final"
}

case ${1:-} in
build)
  [ ! -f "$(archive)" ] || exit 0
  began=$(date +%s)
  say "making the node's file system from $suite packages (log: $LOGS/rootfs.log)"
  logged rootfs "$0" make || die "the node's file system could not be made"
  say "made the node's file system in $(($(date +%s) - began)) s"
  ;;
where) archive ;;
make) make ;;
*) die "usage: rootfs.sh build|where" ;;
esac
