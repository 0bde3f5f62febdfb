#!/bin/bash
# Whatever building and testing need: checks it, and as root on Debian installs what is missing. Silent and quick when
# there is nothing to do. With `tests` it looks for what only the tests need as well, with `fuzz` for what only fuzzing
# does, with `static` for what only the static binary and the image do, with `packages` and `package-tests` for what making and
# testing packages does; with `install PACKAGE...` it installs just these, which engine.sh uses.
#
# What only the tests run (a registry, a static busybox) is unpacked into target/tools instead of being installed:
# the registry's package would start a service.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$root/target/tools
needed_rust=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")

say() { echo "setup: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Runs a command and shows what it said only when it failed.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

apt() {
    quietly env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"
}

# Always from fresh package lists: old ones may know an older Rust only, or files that are gone.
install() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "missing: $*; as root on Debian \`make setup\` installs it, elsewhere install it by hand and try again"
    fi
    say "installing $*"
    apt update || say "apt-get update failed; going on with the package lists that are here"
    apt install -y --no-install-recommends "$@" || die "cannot install $*"
}

# A root who only sets up for somebody else must not own the folder in which they build.
make_tools_folder() {
    mkdir -p "$tools"
    [ "$(id -u)" -ne 0 ] || chown --reference="$root" "$root/target" "$tools"
}

# Unpacks the program $2 of a package into target/tools, which needs no root.
unpack() {
    local package=$1 name=$2 work file
    command -v apt-get >/dev/null || die "missing: $name; put a static busybox and docker-registry into $tools"
    say "unpacking $name from the package $package into target/tools"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    # apt drops its privileges for a download.
    chmod 755 "$work"
    [ "$(id -u)" -ne 0 ] || chown _apt "$work" 2>/dev/null || true
    if ! (cd "$work" && apt download "$package" 2>/dev/null); then
        [ "$(id -u)" -ne 0 ] || apt update || true
        (cd "$work" && apt download "$package") || die "cannot download $package"
    fi
    dpkg-deb -x "$work"/*.deb "$work/x"
    # In /bin or, as of Debian 13, in /usr/bin.
    file=$(find "$work/x" -type f -path "*/bin/$name")
    [ -n "$file" ] || die "the package $package has no $name"
    make_tools_folder
    # By a rename, so that a half-copied tool is never found.
    cp "$file" "$tools/.$name.$$"
    mv "$tools/.$name.$$" "$tools/$name"
    rm -rf "$work"
}

# Whether cargo is there and new enough: the larger of both versions is its own.
rust_is_fit() {
    local found
    found=$("${CARGO:-cargo}" --version 2>/dev/null | cut -d' ' -f2)
    [ -n "$found" ] && [ "$(printf '%s\n' "$needed_rust" "$found" | sort -V | tail -n1)" = "$found" ]
}

build_needs() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    { command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing+=(libssl-dev)
    # Without it cargo trusts nobody.
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ ! -e /etc/debian_version ] || missing+=(ca-certificates)
    if ! rust_is_fit; then
        missing+=(cargo-web rustc-web rustfmt-web rust-web-clippy)
    else
        command -v cargo-fmt >/dev/null || missing+=(rustfmt-web)
        command -v cargo-clippy >/dev/null || missing+=(rust-web-clippy)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    install "${missing[@]}"
    rust_is_fit || die "Rust $needed_rust or newer is needed; see https://rustup.rs"
}

# A busybox without libraries: it is all that a task image has. "interpreter" is the mark of a dynamic program.
is_static() {
    [ -x "$1" ] && ! LC_ALL=C grep -qa '/ld-linux\|/ld-musl' "$1"
}

test_tools() {
    if ! [ -x "$tools/busybox" ]; then
        if is_static /bin/busybox; then
            make_tools_folder
            cp /bin/busybox "$tools/.busybox.$$"
            mv "$tools/.busybox.$$" "$tools/busybox"
        else
            unpack busybox-static busybox
        fi
    fi
    [ -x "$tools/docker-registry" ] || unpack docker-registry docker-registry
}

# Programs that the tests run as they are.
test_programs() {
    local program missing=()
    for program in podman openssl mandoc zsh fish; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    command -v groff >/dev/null || missing+=(groff-base)
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
}

# OpenSSL is built from its sources; and a compiler for musl is rustup's when that has the target, else Debian's, which
# builds the standard library itself (packaging/static says more).
static_needs() {
    local musl missing=()
    musl=$(rustc --print sysroot 2>/dev/null)/lib/rustlib/x86_64-unknown-linux-musl/lib
    command -v perl >/dev/null || missing+=(perl)
    command -v make >/dev/null || missing+=(make)
    if [ -d "$musl" ]; then
        command -v musl-gcc >/dev/null || missing+=(musl-tools)
    else
        debian_rust_is_fit || missing+=(rustc-web cargo-web rust-web-src)
        command -v c++ >/dev/null || missing+=(g++)
        python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    install "${missing[@]}"
    [ -d "$musl" ] || debian_rust_is_fit || die "the static binary needs Debian's Rust $needed_rust or rustup's musl target"
}

# By their full path: a rustup in front of them may be what builds everything else.
debian_rust_is_fit() {
    [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/src/rust/library ] && CARGO=/usr/bin/cargo rust_is_fit
}

# Programs by the packages that they are in: NAME:PACKAGE.
programs() {
    local program missing=()
    for program in "$@"; do
        command -v "${program%:*}" >/dev/null || missing+=("${program#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
}

# A small Debian, of the release and from the mirror of this machine, to install packages in: kept as an archive without what
# no test looks at.
debian_root() {
    local work suite mirror
    [ ! -e "$tools/debian-root.tar" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "a small Debian can be made as root on Debian only; put one into $tools/debian-root.tar"
    fi
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
        sed -n "s/ $suite\$//p" | head -n 1)
    say "making a small Debian in target/tools"
    make_tools_folder
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    quietly debootstrap --variant=minbase --include=systemd "$suite" "$work/root" "$mirror" ||
        die "debootstrap has failed"
    rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,locale,man,i18n}/*
    tar -C "$work/root" --one-file-system -cf "$tools/.debian-root.tar.$$" .
    mv "$tools/.debian-root.tar.$$" "$tools/debian-root.tar"
    rm -rf "$work"
}

# The fuzzer itself is written in C++.
fuzz_needs() {
    command -v c++ >/dev/null || install g++
}

case "${1:-}" in
install)
    shift
    install "$@"
    ;;
tests)
    build_needs
    test_tools
    test_programs
    ;;
fuzz)
    build_needs
    fuzz_needs
    ;;
static)
    build_needs
    static_needs
    ;;
packages)
    build_needs
    programs rpmbuild:rpm readelf:binutils xz:xz-utils
    ;;
package-tests)
    programs lintian:lintian rpmlint:rpmlint debootstrap:debootstrap openssl:openssl
    test_tools
    debian_root
    ;;
*)
    build_needs
    test_tools
    ;;
esac
