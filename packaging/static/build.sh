#!/bin/bash
# build.sh
#
# Builds target/static/oz-agent-worker: one file for every Linux on x86-64, including OpenSSL and the C library. Does nothing
# if nothing has changed. CARGO_TARGET_DIR is honoured.
#
# musl, because a static glibc needs shared libraries of the same glibc on the host to resolve names. musl's allocator, because
# with 100 tasks of 4 MiB of output, eight at a time, the worker took 18.7 s of CPU time, 68 MB at its peak and 7.9 MB ten
# seconds later; with mimalloc it took 21.5 s, 195 MB and 148 MB.
#
# The compiler is rustup's if it has the musl target, otherwise Debian's (rustc-web, cargo-web, rust-web-src). Debian has no
# standard library for musl, so it is built here with the C toolchain of sysroot.sh and an unstable option of cargo. The linker
# is rustc's default for this target: with `linker=musl-gcc` the binary would need musl's loader at run time, which `ldd` does
# not show.
#
# The same commit gives the same bytes in every folder:
#   - source paths are mapped to fixed ones;
#   - OpenSSL writes its build date and its install folders into the binary: the date is fixed by SOURCE_DATE_EPOCH, and
#     `wrap_compiler` replaces the folders, which would lie below the checkout.
set -euo pipefail

cd "$(dirname "$0")/../.."
root=$PWD
mkdir -p "${CARGO_TARGET_DIR:-target}"
built=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
tools=$built/static-tools
target=x86_64-unknown-linux-musl
largest=$((15 * 1024 * 1024 / 2))
flags=()
# These would change the binary.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_TARGET
unset CFLAGS CPPFLAGS LDFLAGS CC AR RANLIB OPENSSL_DIR OPENSSL_NO_VENDOR OPENSSL_STATIC OPENSSL_CONFIG_DIR

die() {
    echo "static: $*" >&2
    exit 1
}

# Sets $rustc, $cargo, $compiler (for C), $libc (musl's archive), $llvm (the release of the unwinder), and the arrays $flags and
# $options.
choose_toolchain() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "the static binary can be built on x86-64 Linux only"
    [[ $built != *[[:space:]]* ]] || die "OpenSSL cannot be built below a path with blanks: $built; set CARGO_TARGET_DIR to another folder"
    if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then
        rustc=rustc cargo=${CARGO:-cargo} options=()
        compiler=$(command -v musl-gcc) || die "musl-gcc is missing: install musl-tools"
        libc=$(rustc --print sysroot)/lib/rustlib/$target/lib/self-contained/libc.a
        llvm=$(rustc -vV | sed -n 's/^LLVM version: //p')
        return
    fi
    if ! [ -x /usr/bin/rustc ] || ! [ -x /usr/bin/cargo ]; then
        die "no Rust for musl: run \`rustup target add $target\`, or install rustc-web, cargo-web and rust-web-src"
    fi
    packaging/static/sysroot.sh "$tools/musl"
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo compiler=$tools/musl/bin/musl-gcc
    libc=$tools/musl/lib/libc.a llvm=$(cat "$tools/musl/llvm")
    flags+=("-Lnative=$tools/musl/lib")
    options=("-Zbuild-std=std,panic_unwind")
    export RUSTC_BOOTSTRAP=1 RUSTC=$rustc
}

# Makes a musl-gcc that is found in PATH, because OpenSSL writes the command of its compiler into the binary. It optimizes for
# size, like the Rust code, and omits unwind tables, because no panic unwinds through C code.
wrap_compiler() {
    mkdir -p "$tools/bin"
    cat >"$tools/bin/musl-gcc" <<EOF
#!/bin/sh
exec "$compiler" "\$@" -Os -fno-asynchronous-unwind-tables -UENGINESDIR -UMODULESDIR \\
    -DENGINESDIR='"/usr/local/ssl/engines"' -DMODULESDIR='"/usr/local/ssl/modules"'
EOF
    chmod 755 "$tools/bin/musl-gcc"
    export PATH=$tools/bin:$PATH CC_x86_64_unknown_linux_musl=musl-gcc
}

# Deletes the previous build if the C compiler has changed, which cargo does not notice.
discard_build_of_another_compiler() {
    local stamp
    stamp=$({ cat "$tools/bin/musl-gcc" "$compiler" "$tools/musl/stamp" 2>/dev/null || true; gcc --version; } | sha256sum)
    [ "$(cat "$built/static-build/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "$built/static-build"
    mkdir -p "$built/static-build"
    echo "$stamp" >"$built/static-build/stamp"
}

build() {
    # Some of the C code calls functions of libgcc. Packed relocations (DT_RELR, in musl since 1.2.4) save 24 bytes for each
    # pointer in the binary's tables.
    flags+=(-Ctarget-feature=+crt-static -Clink-arg=-lgcc -Clink-arg=-Wl,-z,pack-relative-relocs "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
        "--remap-path-prefix=$built=/target" "--remap-path-prefix=$root=/source"
        "--remap-path-prefix=$("$rustc" --print sysroot)=/rust")
    local IFS=$'\x1f'
    CARGO_ENCODED_RUSTFLAGS=${flags[*]} SOURCE_DATE_EPOCH=0 "$cargo" build --locked --profile static --target "$target" \
        "${options[@]}" --features vendored-openssl --bin oz-agent-worker --target-dir "$built/static-build"
}

# Fails unless the binary is static, position-independent and at most $largest bytes.
check() {
    local binary=$1 size head
    size=$(stat -c %s "$binary")
    head=$(readelf -hldW "$binary")
    [[ $head =~ Type:\ *DYN ]] || die "$binary is not position-independent"
    [[ $head != *INTERP* ]] || die "$binary needs a loader (INTERP), so it is not static"
    [[ $head != *\(NEEDED\)* ]] || die "$binary needs a library (NEEDED), so it is not static"
    [ "$size" -le "$largest" ] || die "$binary has $size bytes; the limit is $largest (\$largest in $0)"
}

# Prints name, version and licence of each linked part that is not a crate, for packaging/third-party.sh. musl's version is read
# from its archive.
parts() {
    local musl
    musl=$(strings -a "$libc" | grep -xE '1\.[0-9]+\.[0-9]+' | head -n 1)
    printf '%s\n' "musl ${musl:?} MIT" "llvm-libunwind ${llvm:?} Apache-2.0 WITH LLVM-exception" \
        "rust-std $("$rustc" -vV | sed -n 's/^release: //p') MIT OR Apache-2.0"
}

choose_toolchain
wrap_compiler
discard_build_of_another_compiler
build
made=$built/static-build/$target/static/oz-agent-worker
check "$made"
mkdir -p "$built/static"
if ! cmp -s "$made" "$built/static/oz-agent-worker"; then
    cp "$made" "$built/static/.oz-agent-worker.$$"
    mv "$built/static/.oz-agent-worker.$$" "$built/static/oz-agent-worker"
fi
parts >"$built/static/parts"
echo "built $built/static/oz-agent-worker ($(stat -c %s "$made") bytes)"
