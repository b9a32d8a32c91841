#!/usr/bin/env bash
# MySQL's own server into a folder: .ci/mysql_server.sh FOLDER
#
# Debian has it in its unstable suite only, where it stands in MariaDB's place and needs newer libraries than the
# machine's. So its packages are fetched from wherever apt has Debian's, with all that they need, and unpacked: nothing
# is installed, and nobody has to be root.
set -euo pipefail
folder=$(realpath -m "$1")
draft=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$draft"' EXIT

archive() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1; }
test -n "$(archive)" || apt-get -qq update
test -n "$(archive)" || { echo "apt knows no archive of Debian's" >&2; exit 1; }
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$draft"/{root,lists/partial,cache/archives/partial}
echo "deb [signed-by=$keys] $(archive) unstable main" > "$draft/sources.list"
: > "$draft/status"
own=(-qq -o "Dir::Etc::SourceList=$draft/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$draft/lists"
  -o "Dir::State::Status=$draft/status" -o "Dir::Cache=$draft/cache" -o "APT::Sandbox::User=" -o Acquire::Languages=none)
apt-get "${own[@]}" update
apt-get "${own[@]}" --yes --no-install-recommends --download-only install mysql-server-core >/dev/null
for package in "$draft"/cache/archives/*.deb; do
  case ${package##*/} in perl*|libperl*|gcc*) continue ;; esac # its maintenance's
  dpkg-deb --extract "$package" "$draft/root"
done
rm -rf "$draft"/root/usr/share/{doc,man,locale}
chmod 755 "$draft/root"
mv -T "$draft/root" "$folder"
