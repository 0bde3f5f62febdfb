#!/bin/bash
# package.sh deb | rpm | tar WORKER
# package.sh dist WORKER...
#
# Packs WORKER, a static binary, into OUT (default target/dist) and prints the path of each file. `dist` removes the files of
# earlier releases and makes a whole release of one binary per architecture: the sources, the checksums, and for each binary deb,
# rpm, archive, SBOM and third-party licences. The architecture is that of the binary.
#
# A package contains the files of `make install` with PREFIX=/usr, and the third-party licences. dpkg-deb and rpmbuild make the
# packages. The same sources give the same bytes: every time stamp is SOURCE_DATE_EPOCH, by default the time of the last commit.
#
# Publishers should set MAINTAINER="Name <address>". RELEASE (default 1) numbers the packages of one version.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
name=oz-agent-worker
usage="usage: package.sh deb | rpm | tar | dist WORKER..."
out=${OUT:-$root/target/dist}
maintainer=${MAINTAINER:-The oz-agent-worker authors <oz-agent-worker@example.org>}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
release=${RELEASE:-1}

say() { echo "package: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# The default outside a git repository, as in an unpacked source archive, is the time of the changelog's last change.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/CHANGELOG.md")}
export SOURCE_DATE_EPOCH

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# rpmbuild's helpers may run as another user.
chmod 755 "$work"
tree=$work/tree
licences=$work/licences

# Sets $worker, $arch and $debian (the architecture's name in rpm and in Debian), and $licences to those of the binary $1.
choose() {
    worker=$(realpath "$1")
    [ -f "${worker%/*}/parts" ] || die "${worker%/*}/parts, which lists the libraries in the binary, is missing: run \`make static\`"
    read -r arch debian <<<"$("$here/architecture.sh" "$worker")"
    [ "$("$here/emulate.sh" "$worker" --version)" = "$name $version" ] || die "$worker is not version $version: run \`make static\`"
    WORKER=$worker "$here/third-party.sh" licences >"$licences"
}

# Installs into $tree with prefix $1 and sets $doc to the documentation folder.
make_tree() {
    local prefix=$1
    doc=$tree$prefix/share/doc/$name
    rm -rf "$tree"
    WORKER=$worker PREFIX=$prefix SYSCONFDIR=/etc DESTDIR=$tree "$here/install.sh" install 2>"$work/log" || {
        cat "$work/log" >&2
        die "packaging/install.sh failed; see above"
    }
    cp "$licences" "$doc/THIRD-PARTY.txt"
    gzip -9n "$tree$prefix/share/man/man1/$name.1"
}

# Sets the time of everything below $1 to SOURCE_DATE_EPOCH.
set_times() {
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# Prints the control file for an installed size of $1 KiB. Does not use sed, because a maintainer's name can contain any character.
control() {
    local text
    text=$(<"$here/deb/control.in")
    text=${text//@VERSION@/"$version-$release"}
    text=${text//@ARCHITECTURE@/"$debian"}
    text=${text//@MAINTAINER@/"$maintainer"}
    echo "${text//@SIZE@/"$1"}"
}

deb() {
    local file
    make_tree /usr
    # Debian's paths and file formats.
    mv "$tree/usr/share/zsh/site-functions" "$tree/usr/share/zsh/vendor-completions"
    rm "$doc/LICENSE"
    { cat "$here/deb/copyright" && echo "License: Expat" && sed -e '1,4d' -e 's/^$/./' -e 's/^/ /' "$root/LICENSE"; } \
        >"$doc/copyright"
    mv "$doc/CHANGELOG.md" "$doc/changelog"
    printf '%s (%s-%s) unstable; urgency=medium\n\n  * What has changed is in changelog.gz.\n\n -- %s  %s\n' \
        "$name" "$version" "$release" "$maintainer" "$(date -Rd "@$SOURCE_DATE_EPOCH")" >"$doc/changelog.Debian"
    gzip -9n "$doc/changelog" "$doc/changelog.Debian" "$doc/THIRD-PARTY.txt" "$doc/README.md"
    mkdir -p "$tree/usr/share/lintian/overrides" "$tree/DEBIAN"
    install -m 644 "$here/deb/lintian-overrides" "$tree/usr/share/lintian/overrides/$name"
    for file in postinst prerm postrm; do
        install -m 755 "$here/deb/$file" "$tree/DEBIAN/$file"
    done
    # Not a conffile: dpkg would ask which version to keep, and an unattended upgrade would fail or keep asking. postinst copies it.
    mkdir -p "$tree/usr/share/$name"
    mv "$tree/etc/$name/worker.env" "$tree/usr/share/$name/worker.env"
    chmod 644 "$tree/usr/share/$name/worker.env"
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    control "$(du -k -s --apparent-size "$tree" | cut -f 1)" >"$tree/DEBIAN/control"
    set_times "$tree"
    file=$out/${name}_$version-${release}_$debian.deb
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$file" >/dev/null
    echo "$file"
}

rpm() {
    command -v rpmbuild >/dev/null || die "rpmbuild is missing: install the package rpm"
    make_tree /usr
    mkdir -p "$tree/usr/share/licenses/$name"
    mv "$doc/LICENSE" "$doc/THIRD-PARTY.txt" "$tree/usr/share/licenses/$name"
    set_times "$tree"
    rpmbuild -bb --target "$arch-linux" --define "_topdir $work/rpm" --define "_rpmdir $out" \
        --define "_build_name_fmt %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm" \
        --define "worker_tree $tree" --define "worker_version $version" --define "worker_release $release" \
        --define "worker_packager $maintainer" \
        --define "worker_date $(date -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" "$here/rpm/$name.spec" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "rpmbuild failed; see above"
    }
    echo "$out/$name-$version-$release.$arch.rpm"
}

# Makes an archive to unpack over / on hosts without dpkg or rpm. It contains no settings, so an upgrade does not overwrite them.
tar() {
    local file=$out/$name-$version-$arch-linux.tar.gz
    make_tree /usr/local
    rm -rf "${tree:?}/etc" "$work/$name-$version"
    mv "$tree" "$work/$name-$version"
    set_times "$work/$name-$version"
    # Files only: a folder in the archive would replace a link on the host, or change a folder's owner and mode.
    (cd "$work" && find "$name-$version" -type f -print0 | sort -z) |
        command tar -C "$work" --no-recursion --null -T - --owner=0 --group=0 --numeric-owner -c | gzip -9n >"$file"
    echo "$file"
}

sources() {
    local file=$out/$name-$version.tar.gz
    git -C "$root" rev-parse --quiet --verify HEAD >/dev/null ||
        die "cannot make the source archive: $root is not a git repository with a commit"
    git -C "$root" diff --quiet HEAD -- || say "warning: the source archive does not contain the uncommitted changes"
    git -C "$root" archive --format=tar --prefix="$name-$version/" HEAD | gzip -9n >"$file"
    echo "$file"
}

dist() {
    local binary part
    # Removes only the files of earlier releases.
    rm -f "$out/$name"[-_]* "$out/SHA256SUMS"
    for binary; do
        choose "$binary"
        for part in deb rpm tar; do "$part"; done
        WORKER=$worker "$here/third-party.sh" sbom >"$out/$name-$version-$arch.spdx"
        cp "$licences" "$out/$name-$version-$arch-THIRD-PARTY.txt"
    done
    sources
    (cd "$out" && sha256sum -- "$name"[-_]*) >"$work/sums"
    mv "$work/sums" "$out/SHA256SUMS"
    echo "$out/SHA256SUMS"
}

[ $# -ge 2 ] || die "$usage"
case $1 in
deb | rpm | tar)
    choose "$2"
    "$1"
    ;;
dist) dist "${@:2}" ;;
*) die "$usage" ;;
esac
