#!/usr/bin/env bash
# The programs that `make test-deploy` runs and that are no Python packages: .ci/deploy_tools.sh
#
# They come from Debian by apt, which only root may do; anybody else is told in one line what is missing. No service is
# started: the tests start what they need themselves, and stop it.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

# Prometheus' own judge of rules: taken out of its package, whose installation would start a server.
fetch_promtool() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/churnguard-deploy draft
  if test -x "$cache/promtool" || command -v promtool >/dev/null; then return; fi
  mkdir -p "$cache"
  draft=$(mktemp -d "$cache/promtool.XXXXXX")
  test -n "$(apt-cache show prometheus 2>/dev/null)" || apt-get -qq update || true
  if (cd "$draft" && apt-get -qq -o APT::Sandbox::User= download prometheus) && dpkg-deb --extract "$draft"/*.deb "$draft"; then
    mv "$draft/usr/bin/promtool" "$cache/promtool"
  else
    echo "Some tests of the deployment need promtool: apt-get install prometheus" >&2
  fi
  rm -rf "$draft"
}
fetch_promtool

missing=()
needs() { # PROGRAM PACKAGE
  command -v "$1" >/dev/null || missing+=("$2")
}
needs dockerd docker.io
needs mmdebstrap mmdebstrap

test ${#missing[@]} -gt 0 || exit 0
if test "$(id -u)" != 0 || ! command -v apt-get >/dev/null; then
  echo "Some tests of the deployment need these Debian packages: apt-get install ${missing[*]}" >&2
  exit 0
fi
policy=/usr/sbin/policy-rc.d # what a package's installation asks whether it may start its service
if ! test -e "$policy"; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" > /dev/null
