#!/bin/bash
# package.sh deb | rpm | tar | dist, out of WORKER, the static binary: what it has made is in target/dist, or OUT.
#
# `dist` makes all of them, in place of any others there, with the sources, what the binary is linked with (a list for programs, and the
# licences), and checksums.
#
# The tree of a package is what `make install` installs with PREFIX=/usr, and the licences of what is linked; the packages are
# made by the distributions' own tools, dpkg-deb and rpmbuild. The same sources give the same bytes: every time stamp is
# SOURCE_DATE_EPOCH, by default that of the last commit.
#
# deb/control.in wants a maintainer: MAINTAINER="Name <address>", which whoever publishes packages should set.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
name=oz-agent-worker
worker=$(realpath "${WORKER:?}")
out=${OUT:-$root/target/dist}
maintainer=${MAINTAINER:-The oz-agent-worker authors <oz-agent-worker@example.org>}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
# For packages of the same version that differ in how they are packed.
release=${RELEASE:-1}

say() { echo "package: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Outside of a repository, as in an unpacked archive, the last change of the changelog is as good.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/CHANGELOG.md")}
export SOURCE_DATE_EPOCH

[ -f "${worker%/*}/parts" ] || die "nobody has noted what $worker is linked with: run \`make static\`"
[ "$("$worker" --version)" = "$name $version" ] || die "$worker is not version $version: run \`make static\`"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Others may look at what is packed, as rpmbuild's helpers do.
chmod 755 "$work"
tree=$work/tree
licences=$work/licences
WORKER=$worker "$here/third-party.sh" licences >"$licences"

make_tree() {
    local prefix=$1
    doc=$tree$prefix/share/doc/$name
    rm -rf "$tree"
    WORKER=$worker PREFIX=$prefix SYSCONFDIR=/etc DESTDIR=$tree "$here/install.sh" install 2>"$work/log" || {
        cat "$work/log" >&2
        die "installing into a folder has failed"
    }
    cp "$licences" "$doc/THIRD-PARTY.txt"
    gzip -9n "$tree$prefix/share/man/man1/$name.1"
}

# Everything as old as the last change.
settle() {
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# Whatever is in a name, it is not for sed.
control() {
    local text
    text=$(<"$here/deb/control.in")
    text=${text//@VERSION@/"$version-$release"}
    text=${text//@MAINTAINER@/"$maintainer"}
    echo "${text//@SIZE@/"$1"}"
}

deb() {
    local file
    make_tree /usr
    # Debian's places and forms.
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
    for file in preinst postinst prerm postrm; do
        install -m 755 "$here/deb/$file" "$tree/DEBIAN/$file"
    done
    echo "/etc/$name/worker.env" >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    control "$(du -k -s --apparent-size "$tree" | cut -f 1)" >"$tree/DEBIAN/control"
    settle "$tree"
    file=$out/${name}_$version-${release}_amd64.deb
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$file" >/dev/null
    echo "$file"
}

rpm() {
    make_tree /usr
    mkdir -p "$tree/usr/share/licenses/$name"
    mv "$doc/LICENSE" "$doc/THIRD-PARTY.txt" "$tree/usr/share/licenses/$name"
    settle "$tree"
    rpmbuild -bb --target x86_64-linux --define "_topdir $work/rpm" --define "_rpmdir $out" \
        --define "_build_name_fmt %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm" \
        --define "worker_tree $tree" --define "worker_version $version" --define "worker_release $release" \
        --define "worker_packager $maintainer" \
        --define "worker_date $(date -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" "$here/rpm/$name.spec" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "rpmbuild has failed"
    }
    echo "$out/$name-$version-$release.x86_64.rpm"
}

# For hosts without a package manager, to be unpacked over /. Without the settings, which an upgrade must not touch.
tar() {
    local file=$out/$name-$version-x86_64-linux.tar.gz
    make_tree /usr/local
    rm -rf "${tree:?}/etc" "$work/$name-$version"
    mv "$tree" "$work/$name-$version"
    settle "$work/$name-$version"
    # No folders: those of the host may be links, or have rights of their own, which an archive would put its own in place of.
    (cd "$work" && find "$name-$version" -type f -print0 | sort -z) |
        command tar -C "$work" --no-recursion --null -T - --owner=0 --group=0 --numeric-owner -c | gzip -9n >"$file"
    echo "$file"
}

sources() {
    local file=$out/$name-$version.tar.gz
    git -C "$root" rev-parse --quiet --verify HEAD >/dev/null ||
        die "the sources are archived out of a git repository, and $root is none"
    git -C "$root" diff --quiet HEAD -- || say "the sources are those of the last commit, which is not what was built"
    git -C "$root" archive --format=tar --prefix="$name-$version/" HEAD | gzip -9n >"$file"
    echo "$file"
}

dist() {
    local part
    # Nothing of another version, and nothing of anybody else's.
    rm -f "$out/$name"[-_]* "$out/SHA256SUMS"
    for part in deb rpm tar sources; do "$part"; done
    WORKER=$worker "$here/third-party.sh" sbom >"$out/$name-$version.spdx"
    cp "$licences" "$out/$name-$version-THIRD-PARTY.txt"
    (cd "$out" && sha256sum -- "$name"[-_]*) >"$work/sums"
    mv "$work/sums" "$out/SHA256SUMS"
    echo "$out/SHA256SUMS"
}

case "${1:-}" in
deb | rpm | tar | dist) "$1" ;;
*) die "usage: package.sh deb | rpm | tar | dist" ;;
esac
