#!/bin/bash
# sysroot.sh ARCH TOOLS
#
# Makes a musl C toolchain for ARCH (x86_64 or aarch64) in TOOLS/ARCH: the C library, gcc's start files, an unwinder for panics,
# and bin/musl-gcc, which compiles C against them. Keeps the sources of the unwinder in TOOLS/libunwind. Does nothing if the
# toolchain is up to date.
#
# The parts are pinned by version and checksum, so that the same commit gives the same bytes:
#   - musl from Debian 13, downloaded with separate package lists, so the system's apt sources do not change. Debian 12 has musl
#     1.2.3, which cannot receive DNS answers over TCP. If Debian has replaced the pinned version, the newer one is used with a
#     warning; the binary works, but its bytes differ.
#   - LLVM's libunwind, compiled from source. Debian does not package it for musl, but the ziglang wheel contains the sources. Zig
#     itself is not used, because it replaces musl's allocator and string functions.
set -euo pipefail

musl=1.2.5-3.1~deb13u1
suite=trixie
ziglang=0.17.1
# The LLVM release that this ziglang contains.
llvm=22.1.8
wheel_sum=ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54
declare -A musl_sums=(
    [x86_64]="a3f7d47e452129bb65aae201d6c115abf4d5d3efb136b38b7c6b4fa03ec065e9  musl-dev.deb
2ffc3e5f7ecffdc2b64eeac23ffc199b21b4c93dca8e7310dd2c9ab9cd42ddd4  musl-tools.deb"
    [aarch64]="384ea029e3694baac696d3993d93246f9a4b3741c493697e1ceb7256d8820748  musl-dev.deb
3d3a33291ee2bb651dae1940671fb302d0a1b90a0ad9bc2a1ae8e81151d811c7  musl-tools.deb")

usage="usage: sysroot.sh ARCH TOOLS"
arch=${1:?$usage}
mkdir -p "${2:?$usage}"
tools=$(cd "$2" && pwd)
folder=$tools/$arch
sources=$tools/libunwind
gcc=$arch-linux-gnu-gcc
case $arch in
x86_64) debian=amd64 ;;
aarch64) debian=arm64 ;;
esac
stamp="$(sha256sum <"$0") $("$gcc" -dumpfullversion)"
if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -rf "$folder"
mkdir -p "$folder"/{bin,lib,fetched}
cd "$folder/fetched"
quiet() { "$@" >log 2>&1 || { cat log >&2 && return 1; }; }

die() {
    echo "static: $*" >&2
    exit 1
}

# Downloads from the Debian mirror that this machine uses.
fetch_musl() {
    local mirror package
    # shellcheck disable=SC2016 # apt's own variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
        'Component: main' | head -n1)
    [ -n "$mirror" ] || die "apt has no Debian mirror: add Debian's main archive to /etc/apt/sources.list"
    mkdir -p lists/partial cache/archives/partial
    echo "deb [arch=$debian signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >sources.list
    local own=(-qq -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    quiet apt-get "${own[@]}" update || die "cannot download the package lists of $suite from $mirror"
    for package in musl-dev musl-tools; do
        if ! apt-get "${own[@]}" download "$package:$debian=$musl" >log 2>&1; then
            echo "static: warning: $suite no longer has $package $musl, pinned in $0; using its current version" >&2
            quiet apt-get "${own[@]}" download "$package:$debian" || die "cannot download $package from $suite"
            musl_sums[$arch]=
        fi
        mv "$package"_*.deb "$package.deb"
    done
    [ -z "${musl_sums[$arch]}" ] || sha256sum --quiet -c - <<<"${musl_sums[$arch]}" ||
        die "musl $musl does not have the checksums in $0"
    for package in musl-dev musl-tools; do dpkg-deb -x "$package.deb" musl; done
}

# musl's specs file points gcc to the headers, start files and libraries in $folder.
install_musl() {
    local name
    mv "musl/usr/include/$arch-linux-musl" "$folder/include"
    mv "musl/usr/lib/$arch-linux-musl"/*.[ao] "$folder/lib/"
    sed -e "s|/usr/include/$arch-linux-musl|$folder/include|g" -e "s|/usr/lib/$arch-linux-musl|$folder/lib|g" \
        "musl/usr/lib/$arch-linux-musl/musl-gcc.specs" >"$folder/lib/musl-gcc.specs"
    for name in crtbegin.o crtbeginS.o crtend.o crtendS.o; do cp "$("$gcc" -print-file-name=$name)" "$folder/lib/"; done
    printf '#!/bin/sh\nexec %s "$@" -specs "%s"\n' "$gcc" "$folder/lib/musl-gcc.specs" >"$folder/bin/musl-gcc"
    chmod 755 "$folder/bin/musl-gcc"
}

fetch_libunwind() {
    [ "$(cat "$sources/version" 2>/dev/null)" != "$ziglang" ] || return 0
    echo "ziglang==$ziglang --hash=sha256:$wheel_sum" >wanted
    quiet python3 -m pip download --no-deps --only-binary :all: --require-hashes -r wanted ||
        die "cannot download ziglang $ziglang with the checksum in $0"
    python3 -m zipfile -e ziglang-*.whl wheel
    rm -rf "$sources"
    mv wheel/ziglang/lib/libunwind "$sources"
    echo "$ziglang" >"$sources/version"
}

install_libunwind() {
    local name flags
    flags=(-O2 -fPIC -DNDEBUG -D_LIBUNWIND_IS_NATIVE_ONLY -funwind-tables -ffunction-sections -I../../libunwind/include)
    for name in UnwindLevel1.c UnwindLevel1-gcc-ext.c UnwindRegistersRestore.S UnwindRegistersSave.S; do
        "$folder/bin/musl-gcc" "${flags[@]}" -c "../../libunwind/src/$name" -o "${name%.*}.o"
    done
    "$folder/bin/musl-gcc" "${flags[@]}" -fno-exceptions -fno-rtti -c ../../libunwind/src/libunwind.cpp -o libunwind.o
    # D: no times and owners in the archive.
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
