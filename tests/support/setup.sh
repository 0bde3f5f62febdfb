#!/bin/bash
# setup.sh [demo | check | tests | fuzz | package-tests | deny | coverage | fleet]
# setup.sh static | packages ARCH
# setup.sh engine
#
# Checks for the build tools and the tools of the named purpose. As root on Debian it installs the missing ones; elsewhere it lists
# them and fails. Silent and quick when nothing is missing. `engine` checks only for the tools of a private engine. ARCH is the
# architecture to build for, by default this machine's.
#
# Programs that only the tests run (a registry, a proxy, a static busybox) are unpacked into target/tools instead of being installed,
# because the registry's package would start a service.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$root/target/tools
arch=${2:-$(uname -m)}
needed_rust=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")

say() { echo "setup: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Runs a command and shows its output only if it fails.
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

can_install() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null
}

# Updates the package lists, once per run: old lists may have only an older Rust, or files that the mirror no longer has.
refreshed=
refresh() {
    [ -z "$refreshed" ] || return 0
    refreshed=yes
    apt update || say "apt-get update failed; using the old package lists"
}

install() {
    can_install || die "missing: $*; as root on Debian \`make setup\` installs them, elsewhere install them yourself"
    refresh
    say "installing $*"
    apt install -y --no-install-recommends "$@" || die "cannot install $*"
}

# Keeps the owner of the checkout: root may set up for another user, who builds in this folder.
make_tools_folder() {
    mkdir -p "$tools"
    [ "$(id -u)" -ne 0 ] || chown --reference="$root" "$root/target" "$tools"
}

# Unpacks the program $2 of the package $1 into target/tools. Does not need root.
unpack() {
    local package=$1 name=$2 work file
    command -v apt-get >/dev/null || die "missing: $name; put a static busybox and docker-registry into $tools"
    say "unpacking $name from the package $package into target/tools"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # expanded now, as $work is local
    trap "rm -rf '$work'" EXIT
    # apt drops its privileges for a download.
    chmod 755 "$work"
    [ "$(id -u)" -ne 0 ] || chown _apt "$work" 2>/dev/null || true
    if ! (cd "$work" && apt download "$package" 2>/dev/null); then
        [ "$(id -u)" -ne 0 ] || refresh
        (cd "$work" && apt download "$package") || die "cannot download $package"
    fi
    dpkg-deb -x "$work"/*.deb "$work/x"
    # In /bin or, as of Debian 13, in /usr/bin.
    file=$(find "$work/x" -type f -path "*/bin/$name")
    [ -n "$file" ] || die "the package $package has no $name"
    make_tools_folder
    # A rename, so that an incomplete tool is never found.
    cp "$file" "$tools/.$name.$$"
    mv "$tools/.$name.$$" "$tools/$name"
    rm -rf "$work"
}

# Whether Rust version $1 is new enough.
is_new_enough() {
    [ -n "$1" ] && [ "$(printf '%s\n' "$needed_rust" "$1" | sort -V | tail -n1)" = "$1" ]
}

rust_is_fit() {
    is_new_enough "$("${CARGO:-cargo}" --version 2>/dev/null | cut -d' ' -f2)"
}

no_rust() {
    die "Rust $needed_rust or newer is needed, with cargo, rustfmt and clippy: from https://rustup.rs, or as rustc-web," \
        "cargo-web, rustfmt-web and rust-web-clippy from bookworm-security (Debian 12)"
}

# Fails if Debian has no Rust that is new enough, before anything is installed.
require_packaged_rust() {
    can_install || no_rust
    refresh
    is_new_enough "$(apt-cache policy rustc-web | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p')" || no_rust
}

build_needs() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    { command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing+=(libssl-dev)
    # Without it cargo trusts no server.
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ ! -e /etc/debian_version ] || missing+=(ca-certificates)
    if ! rust_is_fit; then
        require_packaged_rust
        missing+=(cargo-web rustc-web)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    install "${missing[@]}"
    rust_is_fit || no_rust
}

# Whether a program needs no loader. A task image has only a busybox, so that must be static.
is_static() {
    [ -x "$1" ] && ! LC_ALL=C grep -qa '/ld-linux\|/ld-musl' "$1"
}

busybox() {
    if ! [ -x "$tools/busybox" ]; then
        if is_static /bin/busybox; then
            make_tools_folder
            cp /bin/busybox "$tools/.busybox.$$"
            mv "$tools/.busybox.$$" "$tools/busybox"
        else
            unpack busybox-static busybox
        fi
    fi
}

# Programs that `make check` runs.
check_needs() {
    local missing=()
    command -v cargo-fmt >/dev/null || missing+=(rustfmt-web)
    command -v cargo-clippy >/dev/null || missing+=(rust-web-clippy)
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
}

test_tools() {
    busybox
    [ -x "$tools/docker-registry" ] || unpack docker-registry docker-registry
    [ -x "$tools/tinyproxy" ] || unpack tinyproxy-bin tinyproxy
    # Not installed, because the packages would start services.
    # As of Debian 13 a package of its own.
    [ -x "$tools/promtool" ] || unpack "$(apt-cache show promtool >/dev/null 2>&1 && echo promtool || echo prometheus)" promtool
    [ -x "$tools/prometheus" ] || unpack prometheus prometheus
}

# Programs that the tests run as they are installed.
test_programs() {
    local program missing=()
    for program in podman openssl mandoc strace zsh fish curl; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    command -v groff >/dev/null || missing+=(groff-base)
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
}

# OpenSSL is built from source. The compiler for musl is rustup's if that has the target, else Debian's, which builds the
# standard library itself (see packaging/static/build.sh).
static_needs() {
    local musl missing=()
    musl=$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$arch-unknown-linux-musl/lib
    [ "$arch" = "$(uname -m)" ] || musl=/nonexistent
    command -v perl >/dev/null || missing+=(perl)
    command -v make >/dev/null || missing+=(make)
    if [ -d "$musl" ]; then
        command -v musl-gcc >/dev/null || missing+=(musl-tools)
    else
        debian_rust_is_fit || missing+=(rustc-web cargo-web rust-web-src)
        command -v "$arch-linux-gnu-g++" >/dev/null || missing+=("$(cross_compiler)")
        python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    install "${missing[@]}"
    [ -d "$musl" ] || debian_rust_is_fit || die "the static binary needs Debian's Rust $needed_rust or rustup's musl target"
}

# Prints the package of the C++ compiler for $arch.
cross_compiler() {
    if [ "$arch" = "$(uname -m)" ]; then echo g++; else echo "g++-${arch//_/-}-linux-gnu"; fi
}

# By their full paths, as rustup may come first in PATH.
debian_rust_is_fit() {
    [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/src/rust/library ] && CARGO=/usr/bin/cargo rust_is_fit
}

# Installs the packages of missing programs, each given as PROGRAM:PACKAGE.
programs() {
    local program missing=()
    for program in "$@"; do
        command -v "${program%:*}" >/dev/null || missing+=("${program#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
}

# The emulator that runs programs for $arch here. Not installed, because the package changes how the system runs programs.
emulator() {
    [ "$arch" = "$(uname -m)" ] || [ -x "$tools/qemu-$arch-static" ] || unpack qemu-user-static "qemu-$arch-static"
}

# Makes an archive of a small Debian, in which the tests install packages: of this machine's release and from its mirror,
# without documentation and caches.
debian_root() {
    local work suite mirror
    [ ! -e "$tools/debian-root.tar" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "only root on Debian can make a small Debian; put an archive of one at $tools/debian-root.tar"
    fi
    suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
        sed -n "s/ $suite\$//p" | head -n 1)
    say "making a small Debian in target/tools"
    make_tools_folder
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # expanded now, as $work is local
    trap "rm -rf '$work'" EXIT
    quietly debootstrap --variant=minbase --include=systemd "$suite" "$work/root" "$mirror" ||
        die "debootstrap failed"
    rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,locale,man,i18n}/*
    tar -C "$work/root" --one-file-system -cf "$tools/.debian-root.tar.$$" .
    mv "$tools/.debian-root.tar.$$" "$tools/debian-root.tar"
    rm -rf "$work"
}

# The docker command, which the worker does not need. A package of its own as of Debian 13.
docker_command() {
    [ -x "$tools/docker" ] || unpack "$(apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli || echo docker.io)" docker
}

# libFuzzer is written in C++.
fuzz_needs() {
    command -v c++ >/dev/null || install g++
}

# cargo-deny, built from source into target/tools: about two minutes.
deny_needs() {
    local version=0.20.2
    [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ] || return 0
    say "building cargo-deny $version into target/tools; this takes some minutes"
    make_tools_folder
    quietly "${CARGO:-cargo}" install --locked --root "$tools" --version "$version" cargo-deny || die "cannot build cargo-deny"
}

# llvm-cov and llvm-profdata that can read the profiles of this rustc.
coverage_needs() {
    local major
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    [ ! -x "$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-cov" ] || return 0
    programs "llvm-cov-$major:llvm-$major"
}

# Before anything is installed for it.
require_known_architecture() {
    case $arch in
    x86_64 | aarch64) ;;
    *) die "ARCH is \"$arch\"; it must be x86_64 or aarch64" ;;
    esac
}

case "${1:-}" in
demo)
    build_needs
    busybox
    ;;
check)
    build_needs
    check_needs
    ;;
tests)
    build_needs
    check_needs
    test_tools
    test_programs
    programs debootstrap:debootstrap
    debian_root
    ;;
engine)
    command -v dockerd >/dev/null || install docker.io iptables
    busybox
    ;;
fuzz)
    build_needs
    fuzz_needs
    ;;
deny)
    build_needs
    deny_needs
    ;;
coverage)
    build_needs
    coverage_needs
    ;;
fleet)
    build_needs
    busybox
    docker_command
    ;;
static)
    require_known_architecture
    build_needs
    static_needs
    ;;
packages)
    require_known_architecture
    build_needs
    programs rpmbuild:rpm readelf:binutils xz:xz-utils
    emulator
    ;;
package-tests)
    programs lintian:lintian rpmlint:rpmlint debootstrap:debootstrap openssl:openssl podman:podman strace:strace skopeo:skopeo cpio:cpio
    test_tools
    debian_root
    ;;
*)
    build_needs
    ;;
esac
