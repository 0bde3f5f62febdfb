#!/bin/bash
# build.sh
#
# Builds one file for every Linux on ARCH (x86_64 or aarch64, by default this machine's), including OpenSSL and the C library:
# target/static/oz-agent-worker, or target/static-ARCH/oz-agent-worker for another architecture than this machine's. Does nothing
# if nothing has changed. CARGO_TARGET_DIR is honoured.
#
# musl, because a static glibc needs shared libraries of the same glibc on the host to resolve names. musl's allocator, because
# with 100 tasks of 4 MiB of output, eight at a time, the worker took 18.7 s of CPU time, 68 MB at its peak and 7.9 MB ten
# seconds later; with mimalloc it took 21.5 s, 195 MB and 148 MB.
#
# The compiler is rustup's if it has the musl target, otherwise, and for another architecture, Debian's (rustc-web, cargo-web,
# rust-web-src). Debian has no standard library for musl, so it is built here with the C toolchain of sysroot.sh and an unstable
# option of cargo. The linker is gcc without musl's specs file: with `linker=musl-gcc` the binary would need musl's loader at run
# time, which `ldd` does not show.
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
machine=$(uname -m)
arch=${ARCH:-$machine}
tools=$built/static-tools
target=$arch-unknown-linux-musl
folder=$built/static
[ "$arch" = "$machine" ] || folder=$built/static-$arch
declare -A largest=([x86_64]=$((7 * 1024 * 1024)) [aarch64]=$((8 * 1024 * 1024)))
flags=()
# These would change the binary.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_TARGET
unset CFLAGS CPPFLAGS LDFLAGS CC AR RANLIB OPENSSL_DIR OPENSSL_NO_VENDOR OPENSSL_STATIC OPENSSL_CONFIG_DIR

die() {
    echo "static: $*" >&2
    exit 1
}

# Sets $rustc, $cargo, $prefix (of gcc and ar), $compiler (for C), $libc (musl's archive), $llvm (the release of the unwinder),
# and the arrays $flags and $options.
choose_toolchain() {
    [ "$(uname -s)" = Linux ] || die "the static binary can be built on Linux only"
    [[ $arch =~ ^(x86_64|aarch64)$ ]] || die "ARCH is \"$arch\"; it must be x86_64 or aarch64"
    [[ $built != *[[:space:]]* ]] || die "OpenSSL cannot be built below a path with blanks: $built; set CARGO_TARGET_DIR to another folder"
    if [ "$arch" = "$machine" ] && [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then
        prefix="" rustc=rustc cargo=${CARGO:-cargo} options=()
        compiler=$(command -v musl-gcc) || die "musl-gcc is missing: install musl-tools"
        libc=$(rustc --print sysroot)/lib/rustlib/$target/lib/self-contained/libc.a
        llvm=$(rustc -vV | sed -n 's/^LLVM version: //p')
        return
    fi
    if ! [ -x /usr/bin/rustc ] || ! [ -x /usr/bin/cargo ]; then
        die "no Rust for musl: run \`rustup target add $target\`, or install rustc-web, cargo-web and rust-web-src"
    fi
    packaging/static/sysroot.sh "$arch" "$tools"
    prefix=$arch-linux-gnu- rustc=/usr/bin/rustc cargo=/usr/bin/cargo compiler=$tools/$arch/bin/musl-gcc
    libc=$tools/$arch/lib/libc.a llvm=$(cat "$tools/$arch/llvm")
    flags+=("-Lnative=$tools/$arch/lib")
    # Without the feature `backtrace`, which reads debug information that the binary does not have.
    options=("-Zbuild-std=std,panic_unwind" "-Zbuild-std-features=panic-unwind")
    export RUSTC_BOOTSTRAP=1 RUSTC=$rustc
}

# Makes a musl-gcc that is found in PATH, because OpenSSL writes the command of its compiler into the binary. It optimizes for
# size, like the Rust code, and omits unwind tables, because no panic unwinds through C code.
wrap_compiler() {
    mkdir -p "$tools/bin-$arch"
    cat >"$tools/bin-$arch/musl-gcc" <<EOF
#!/bin/sh
exec "$compiler" "\$@" -Os -fno-asynchronous-unwind-tables -UENGINESDIR -UMODULESDIR \\
    -DENGINESDIR='"/usr/local/ssl/engines"' -DMODULESDIR='"/usr/local/ssl/modules"'
EOF
    chmod 755 "$tools/bin-$arch/musl-gcc"
    export PATH=$tools/bin-$arch:$PATH "CC_${target//-/_}=musl-gcc" "AR_${target//-/_}=${prefix}ar" "RANLIB_${target//-/_}=${prefix}ranlib"
}

# Makes a perl for OpenSSL's build that leaves out what a TLS client has no use for, and algorithms that no certificate of a
# public or usual private authority has. openssl-src has no setting for that.
wrap_perl() {
    cat >"$tools/bin-$arch/configure-openssl" <<'EOF'
#!/bin/sh
[ "$1" != ./Configure ] || set -- "$@" no-quic no-cmp no-cms no-ts no-srp no-ssl-trace no-rfc3779 no-aria no-argon2 no-blake2 \
    no-ec2m no-gost no-lms no-mdc2 no-rmd160 no-siphash no-slh-dsa no-sm2 no-sm3 no-sm4 no-whirlpool
exec perl "$@"
EOF
    chmod 755 "$tools/bin-$arch/configure-openssl"
    export OPENSSL_SRC_PERL=$tools/bin-$arch/configure-openssl
}

# Sets $linker. Packed relocations (DT_RELR, in musl since 1.2.4) save 24 bytes for each pointer in the binary's tables; Debian
# 12's ld has them for x86-64 only. rustc's code for aarch64 is position-independent, but rustc links a static program to a fixed
# address, with these options and start files, so they are replaced.
wrap_linker() {
    if [ "$arch" = x86_64 ]; then
        linker=(-Clink-arg=-Wl,-z,pack-relative-relocs)
        return
    fi
    cat >"$tools/bin-$arch/static-pie-gcc" <<EOF
#!/bin/sh
for argument; do
    shift
    case \$argument in
    -no-pie) argument=-static-pie ;;
    crt1.o | */crt1.o) argument=\${argument%crt1.o}rcrt1.o ;;
    crtbegin.o | */crtbegin.o | crtend.o | */crtend.o) argument=\${argument%.o}S.o ;;
    esac
    set -- "\$@" "\$argument"
done
exec ${prefix}gcc "\$@"
EOF
    chmod 755 "$tools/bin-$arch/static-pie-gcc"
    linker=("-Clinker=$tools/bin-$arch/static-pie-gcc")
}

# Deletes the previous build if the C compiler has changed, which cargo does not notice.
discard_build_of_another_compiler() {
    local stamp
    stamp=$({ cat "$tools/bin-$arch"/* "$compiler" "$tools/$arch/stamp" 2>/dev/null || true; "${prefix}gcc" --version; } | sha256sum)
    [ "$(cat "$built/static-build/$target/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "$built/static-build/$target"
    mkdir -p "$built/static-build/$target"
    echo "$stamp" >"$built/static-build/$target/stamp"
}

build() {
    # Some of the C code calls functions of libgcc.
    flags+=(-Ctarget-feature=+crt-static -Clink-arg=-lgcc "${linker[@]}" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
        "--remap-path-prefix=$built=/target" "--remap-path-prefix=$root=/source"
        "--remap-path-prefix=$("$rustc" --print sysroot)=/rust")
    local IFS=$'\x1f'
    CARGO_ENCODED_RUSTFLAGS=${flags[*]} SOURCE_DATE_EPOCH=0 "$cargo" build --locked --profile static --target "$target" \
        "${options[@]}" --features vendored-openssl --bin oz-agent-worker --target-dir "$built/static-build"
}

# Fails unless the binary is static, position-independent and within its limit of size.
check() {
    local binary=$1 size head
    size=$(stat -c %s "$binary")
    head=$(readelf -hldW "$binary")
    [[ $head =~ Type:\ *DYN ]] || die "$binary is not position-independent"
    [[ $head != *INTERP* ]] || die "$binary needs a loader (INTERP), so it is not static"
    [[ $head != *\(NEEDED\)* ]] || die "$binary needs a library (NEEDED), so it is not static"
    [ "$size" -le "${largest[$arch]}" ] || die "$binary has $size bytes; the limit is ${largest[$arch]} (\$largest in $0)"
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
wrap_perl
wrap_linker
discard_build_of_another_compiler
build
made=$built/static-build/$target/static/oz-agent-worker
check "$made"
mkdir -p "$folder"
if ! cmp -s "$made" "$folder/oz-agent-worker"; then
    cp "$made" "$folder/.oz-agent-worker.$$"
    mv "$folder/.oz-agent-worker.$$" "$folder/oz-agent-worker"
fi
parts >"$folder/parts"
echo "built $folder/oz-agent-worker ($(stat -c %s "$made") bytes)"
