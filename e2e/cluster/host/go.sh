#!/usr/bin/env bash
# Sees to a Go toolchain that is new enough, and links it as `go` into the tools folder of the cache.
#
# A machine's own Go is taken where it is new enough. Else a newer toolchain is fetched as the Go module
# that Go itself uses for that, by whatever older Go is there or by that of Debian's package: its
# checksum is verified like any other module's.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

own=$TOOLS/go
fetched=$CACHE/tools/go-$GO_FETCHED-$(arch)

# release GO: the release of that go command, as 1.24.3; as it is, whatever toolchain it could switch to.
release() { GOTOOLCHAIN=local GOWORK=off "$1" version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p'; }

# The go of the machine, not the one that an earlier run linked.
machine=$(elsewhere go || true)
# Go's usual folders, and those of Debian's packages, need not be on the path.
[ -n "$machine" ] || machine=$(find /usr/local/go/bin /usr/lib/go*/bin -maxdepth 1 -name go 2>/dev/null | sort -V | tail -n1)

if [ -n "$machine" ] && version_at_least "$(release "$machine")" "$GO_MINIMUM"; then
  ln -sfn "$machine" "$own"
  exit 0
fi
if [ ! -x "$fetched/bin/go" ]; then
  if [ -z "$machine" ]; then
    say "no Go on this machine: Debian's Go fetches go$GO_FETCHED"
    "$CLUSTER_DIR/host/packages.sh" go:golang-go ||
      die "install Go $GO_MINIMUM or newer and run this again"
    machine=$(elsewhere go)
  else
    say "Go $(release "$machine") is too old here (at least $GO_MINIMUM is needed): it fetches go$GO_FETCHED"
  fi
  module=golang.org/toolchain@v0.0.1-go$GO_FETCHED.linux-$(arch)
  work=$(mktemp -d "$CACHE/tools/work.XXXXXX")
  trap 'chmod -R u+w "$work" 2>/dev/null || true; rm -rf "$work"' EXIT
  cd "$work"
  printf 'module berth.local/toolchain\n' >go.mod
  logged fetch-go env GOTOOLCHAIN=local GOFLAGS=-mod=mod GOWORK=off GO111MODULE=on "$machine" mod download "$module" ||
    die "go$GO_FETCHED could not be fetched: install Go $GO_MINIMUM or newer and run this again"
  # Modules carry no file modes: the programs must be made executable.
  cp -r "$("$machine" env GOMODCACHE)/$module" go
  chmod -R u+w go
  find go/bin go/pkg/tool -type f -exec chmod 755 {} +
  rm -rf "$fetched"
  mv go "$fetched"
fi
[ -n "$(release "$fetched/bin/go")" ] || die "the fetched Go in $fetched does not run: delete that folder and run this again"
ln -sfn "$fetched/bin/go" "$own"
say "using Go $(release "$own")"
