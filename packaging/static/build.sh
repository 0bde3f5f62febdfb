#!/bin/bash
# build.sh
#
# Builds target/static/oz-agent-worker: one file for every Linux on x86-64, with OpenSSL and the C library inside. When
# nothing has changed it builds nothing. CARGO_TARGET_DIR is honoured.
#
# musl and not glibc: a static glibc resolves names only as far as it finds its own shared libraries on the host. musl's own
# allocator stays: with 100 tasks of 4 MiB of output, eight at a time, the worker took 18.7 s of processor time, 68 MB at
# its peak and 7.9 MB ten seconds later; with mimalloc it was 21.5 s, 195 MB and 148 MB.
#
# The compiler is rustup's when that has the musl target. Otherwise it is Debian's (rustc-web, cargo-web, rust-web-src),
# which builds the standard library for musl itself, with the C toolchain of sysroot.sh; that needs an option that a stable
# compiler hides. Linking is left to rustc's own rules for this target: with `linker=musl-gcc` the result would need musl's
# loader at run time, and `ldd` would not tell.
#
# The same commit gives the same bytes in every folder:
#   - paths of sources are mapped to fixed ones;
#   - OpenSSL writes its date of building and its folder into the binary: it gets a fixed date (nothing else in there has
#     one), and `wrap_compiler` puts folders that no build depends on in the place of those below the checkout.
set -euo pipefail

cd "$(dirname "$0")/../.."
root=$PWD
mkdir -p "${CARGO_TARGET_DIR:-target}"
built=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
tools=$built/static-tools
target=x86_64-unknown-linux-musl
largest=$((13 * 1024 * 1024 / 2))
flags=()
# These would change what is built.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_TARGET
unset CFLAGS CPPFLAGS LDFLAGS CC AR RANLIB OPENSSL_DIR OPENSSL_NO_VENDOR OPENSSL_STATIC OPENSSL_CONFIG_DIR

die() {
    echo "static: $*" >&2
    exit 1
}

# Leaves what builds for musl here in $rustc, $cargo, $compiler, $libc (its archive), $llvm (the release of its unwinder) and
# the arrays $flags and $options.
choose() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "it is built on Linux on x86-64 only"
    [[ $built != *[[:space:]]* ]] || die "OpenSSL cannot be built in a folder with blanks in its path: $built"
    if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then
        rustc=rustc cargo=${CARGO:-cargo} options=()
        compiler=$(command -v musl-gcc) || die "there is no musl-gcc"
        libc=$(rustc --print sysroot)/lib/rustlib/$target/lib/self-contained/libc.a
        llvm=$(rustc -vV | sed -n 's/^LLVM version: //p')
        return
    fi
    packaging/static/sysroot.sh "$tools/musl"
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo compiler=$tools/musl/bin/musl-gcc
    libc=$tools/musl/lib/libc.a llvm=$(cat "$tools/musl/llvm")
    flags+=("-Lnative=$tools/musl/lib")
    options=("-Zbuild-std=std,panic_unwind")
    export RUSTC_BOOTSTRAP=1 RUSTC=$rustc
}

# A musl-gcc for OpenSSL, found by its name alone: OpenSSL writes down how its compiler was called. It builds for size, like
# the rest, and leaves out tables that only a panic in the middle of C code could use; ours never is.
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

# Cargo does not see what its C compiler is, so it starts anew when that has changed.
start_anew_with_another_compiler() {
    local stamp
    stamp=$({ cat "$tools/bin/musl-gcc" "$compiler" "$tools/musl/stamp" 2>/dev/null || true; gcc --version; } | sha256sum)
    [ "$(cat "$built/static-build/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "$built/static-build"
    mkdir -p "$built/static-build"
    echo "$stamp" >"$built/static-build/stamp"
}

build() {
    # Some C code calls what only libgcc has.
    flags+=(-Ctarget-feature=+crt-static -Clink-arg=-lgcc "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
        "--remap-path-prefix=$built=/target" "--remap-path-prefix=$root=/source"
        "--remap-path-prefix=$("$rustc" --print sysroot)=/rust")
    local IFS=$'\x1f'
    CARGO_ENCODED_RUSTFLAGS=${flags[*]} SOURCE_DATE_EPOCH=0 "$cargo" build --locked --profile static --target "$target" \
        "${options[@]}" --features vendored-openssl --bin oz-agent-worker --target-dir "$built/static-build"
}

# Refuses what is not one position-independent file that needs nothing, and what has grown too large.
check() {
    local binary=$1 size head
    size=$(stat -c %s "$binary")
    head=$(readelf -hldW "$binary")
    [[ $head =~ Type:\ *DYN ]] || die "$binary is not position-independent"
    [[ $head != *INTERP* ]] || die "$binary needs a loader (INTERP), so it is not static"
    [[ $head != *\(NEEDED\)* ]] || die "$binary needs a library (NEEDED), so it is not static"
    [ "$size" -le "$largest" ] || die "$binary has $size bytes, more than the $largest that are allowed"
}

# What is linked and no crate, for packaging/third-party.sh: name, version and licence. musl's version is in its archive.
parts() {
    local musl
    musl=$(strings -a "$libc" | grep -xE '1\.[0-9]+\.[0-9]+' | head -n 1)
    printf '%s\n' "musl ${musl:?} MIT" "llvm-libunwind ${llvm:?} Apache-2.0 WITH LLVM-exception" \
        "rust-std $("$rustc" -vV | sed -n 's/^release: //p') MIT OR Apache-2.0"
}

choose
wrap_compiler
start_anew_with_another_compiler
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
