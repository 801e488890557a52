#!/usr/bin/env bash
# Installs Debian packages for the commands that are missing, or says exactly what to install.
#
#   packages.sh COMMAND:PACKAGE...   a command that is missing asks for its package; `:PACKAGE` alone
#                                    asks for a package that brings no command
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

export DEBIAN_FRONTEND=noninteractive
# Without systemd the packages' services are not to be started by their install scripts: engine.sh does it.
[ -d /run/systemd/system ] || export RUNLEVEL=1

# installed PACKAGE: whether dpkg has it.
installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# lists_are_fresh: whether apt's package lists are there and less than a day old.
lists_are_fresh() {
  local lists=/var/lib/apt/lists
  [ -n "$(find $lists -maxdepth 1 -name '*Packages*' -print -quit 2>/dev/null)" ] &&
    [ -n "$(find $lists -maxdepth 0 -mmin -1440 2>/dev/null)" ]
}

update() { logged apt-update apt-get update; }
# Somebody else may be installing just now.
install() { logged apt-install apt-get install -o DPkg::Lock::Timeout=600 -y --no-install-recommends "$@"; }

missing=()
for want; do
  command=${want%%:*} package=${want#*:}
  if [ -n "$command" ]; then
    PATH=$PATH:/usr/sbin:/sbin have "$command" || missing+=("$package")
  else
    installed "$package" || missing+=("$package")
  fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! is_root || ! is_debian; then
  die "missing on this machine: ${missing[*]} (the names of Debian packages; as root: apt-get install ${missing[*]}).
        Install them and run this again."
fi
say "installing from Debian packages: ${missing[*]}"
if ! lists_are_fresh; then update || warn "apt's lists could not be renewed; trying with those that are there"; fi
# Newer Debian keeps the docker command in a package of its own.
if [[ " ${missing[*]} " == *" docker.io "* ]] && [ -n "$(apt-cache madison docker-cli 2>/dev/null)" ]; then
  missing+=(docker-cli)
fi
if ! install "${missing[@]}"; then
  say "once more, with fresh package lists"
  update
  install "${missing[@]}" || die "the packages could not be installed: ${missing[*]}"
fi
