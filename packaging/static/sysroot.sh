#!/bin/bash
# sysroot.sh FOLDER
#
# Makes a musl C toolchain in FOLDER for a machine whose rustup has no musl target: the C library, the start files of gcc,
# an unwinder for panics, and FOLDER/bin/musl-gcc, which compiles C against them. Quick when it is there already.
#
# The parts, each pinned by version and checksum so that the same commit gives the same bytes:
#   - musl from the next Debian, fetched with package lists of our own, so the system's sources stay as they are. Debian
#     12's own is 1.2.3, which cannot take a DNS answer that needs TCP. When Debian has replaced the pinned one by a newer, as
#     for its security, that is taken, with a warning: the binary is as good, but its bytes are others.
#   - LLVM's libunwind, as source. No package of Debian has one for musl, but the ziglang wheel carries the sources. Zig
#     itself is not used: it would replace musl's allocator and string functions by its own.
set -euo pipefail

musl=1.2.5-3.1~deb13u1
suite=trixie
ziglang=0.17.1
# The release of LLVM in it.
llvm=22.1.8
wheel_sum=ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54
musl_sums="a3f7d47e452129bb65aae201d6c115abf4d5d3efb136b38b7c6b4fa03ec065e9  musl-dev.deb
2ffc3e5f7ecffdc2b64eeac23ffc199b21b4c93dca8e7310dd2c9ab9cd42ddd4  musl-tools.deb"

mkdir -p "${1:?the folder to make}"
folder=$(cd "$1" && pwd)
stamp="$(sha256sum <"$0") $(gcc -dumpfullversion)"
if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -rf "$folder"
mkdir -p "$folder"/{bin,lib,fetched}
cd "$folder/fetched"
quiet() { "$@" >log 2>&1 || { cat log >&2 && return 1; }; }

die() {
    echo "static: $*" >&2
    exit 1
}

# The mirror is the one that this machine uses anyway.
fetch_musl() {
    local mirror package
    # shellcheck disable=SC2016 # apt's own variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
        'Component: main' | head -n1)
    [ -n "$mirror" ] || die "apt knows no mirror of Debian; is there a line for its main archive in the sources?"
    mkdir -p lists/partial cache/archives/partial
    echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >sources.list
    local own=(-qq -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    quiet apt-get "${own[@]}" update || die "cannot fetch the package lists of $suite"
    for package in musl-dev musl-tools; do
        if ! apt-get "${own[@]}" download "$package:amd64=$musl" >log 2>&1; then
            echo "static: $suite has no $package $musl any more, which $0 pins; taking its present one" >&2
            quiet apt-get "${own[@]}" download "$package:amd64" || die "cannot fetch $package of $suite"
            musl_sums=
        fi
        mv "$package"_*.deb "$package.deb"
    done
    [ -z "$musl_sums" ] || sha256sum --quiet -c - <<<"$musl_sums" || die "musl $musl is not what it was"
    for package in musl-dev musl-tools; do dpkg-deb -x "$package.deb" musl; done
}

# The specs tell gcc to take its headers, start files and libraries from here.
install_musl() {
    local name
    mv musl/usr/include/x86_64-linux-musl "$folder/include"
    mv musl/usr/lib/x86_64-linux-musl/*.[ao] "$folder/lib/"
    sed -e "s|/usr/include/x86_64-linux-musl|$folder/include|g" -e "s|/usr/lib/x86_64-linux-musl|$folder/lib|g" \
        musl/usr/lib/x86_64-linux-musl/musl-gcc.specs >"$folder/lib/musl-gcc.specs"
    for name in crtbegin.o crtbeginS.o crtend.o crtendS.o; do cp "$(gcc -print-file-name=$name)" "$folder/lib/"; done
    printf '#!/bin/sh\nexec gcc "$@" -specs "%s"\n' "$folder/lib/musl-gcc.specs" >"$folder/bin/musl-gcc"
    chmod 755 "$folder/bin/musl-gcc"
}

fetch_libunwind() {
    echo "ziglang==$ziglang --hash=sha256:$wheel_sum" >wanted
    quiet python3 -m pip download --no-deps --only-binary :all: --require-hashes -r wanted ||
        die "cannot fetch ziglang $ziglang with the checksum in $0"
    python3 -m zipfile -e ziglang-*.whl wheel
}

install_libunwind() {
    local sources=wheel/ziglang/lib/libunwind name flags
    flags=(-O2 -fPIC -DNDEBUG -D_LIBUNWIND_IS_NATIVE_ONLY -funwind-tables -ffunction-sections -I"$sources/include")
    for name in UnwindLevel1.c UnwindLevel1-gcc-ext.c UnwindRegistersRestore.S UnwindRegistersSave.S; do
        "$folder/bin/musl-gcc" "${flags[@]}" -c "$sources/src/$name" -o "${name%.*}.o"
    done
    "$folder/bin/musl-gcc" "${flags[@]}" -fno-exceptions -fno-rtti -c "$sources/src/libunwind.cpp" -o libunwind.o
    # D: without dates and owners.
    ar rcsD "$folder/lib/libunwind.a" Unwind*.o libunwind.o
}

echo "static: making a musl toolchain in $folder" >&2
fetch_musl
install_musl
fetch_libunwind
install_libunwind
cd "$folder"
rm -rf fetched
echo "$llvm" >llvm
echo "$stamp" >stamp
