#!/bin/bash
# unpack.sh SUITE FOLDER
#
# Unpacks Docker and Podman of a Debian release, with all that they depend on, into FOLDER/usr, which can then be mounted over
# /usr for their processes. Nothing is installed: apt gets lists, a cache and a status of its own, and no program of the packages
# is run. Does nothing if FOLDER has them. On failure the last line of stderr is the reason.
set -euo pipefail

suite=${1:?usage: unpack.sh SUITE FOLDER}
folder=${2:?usage: unpack.sh SUITE FOLDER}
packages=(docker.io podman runc crun)

die() {
    echo "$*" >&2
    exit 1
}

[ ! -e "$folder/usr/complete" ] || exit 0
[ "$(id -u)" -eq 0 ] || die "only root can unpack packages with their owners"
command -v apt-get >/dev/null || die "there is no apt-get"
[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 is tested"
[ "$(readlink /bin)" = usr/bin ] || die "/bin is not in /usr"
# shellcheck disable=SC2016 # apt's own variable
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
    'Component: main' | head -n1)
[ -n "$mirror" ] || die "apt has no Debian mirror"

rm -rf "$folder"
mkdir -p "$folder/apt"/{lists/partial,cache/archives/partial}
folder=$(cd "$folder" && pwd)
apt=$folder/apt
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
own=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$apt"
    -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
    -o Acquire::Languages=none -o APT::Sandbox::User=root)
apt-get "${own[@]}" update >"$apt/log" 2>&1 || die "cannot download the package lists of $suite"
apt-get "${own[@]}" install -y --download-only --no-install-recommends "${packages[@]}" >"$apt/log" 2>&1 ||
    die "cannot download ${packages[*]} of $suite"
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$folder/root"
done
# The packages of Debian 12 have files outside of /usr that belong there.
for name in bin sbin lib lib64; do
    [ -d "$folder/root/$name" ] || continue
    mkdir -p "$folder/root/usr/$name"
    cp -a "$folder/root/$name/." "$folder/root/usr/$name/"
done
# Otherwise an installation makes these links.
for name in iptables ip6tables; do
    for action in "" -save -restore; do
        ln -sf xtables-nft-multi "$folder/root/usr/sbin/$name$action"
    done
done
rm -rf "$folder/root/usr/share"/{doc,man,locale,zoneinfo} "$apt"
mv "$folder/root/usr" "$folder/usr"
rm -rf "$folder/root"
touch "$folder/usr/complete"
