#!/bin/bash
# rust-version.sh
#
# Builds with the declared `rust-version`, or says that it was not checked. Does nothing if that is the default Rust, with which
# `make check` has just built.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
declared=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
found=$("$cargo" --version | cut -d' ' -f2)

case $found in
"$declared" | "$declared".*) exit 0 ;;
esac
toolchain=$(rustup toolchain list 2>/dev/null | grep -oE "^$declared(\.[0-9]+)?-" | head -n 1 || true)
if [ -z "$toolchain" ]; then
    echo "check: built with Rust $found; the declared $declared is not installed, so it was not checked" >&2
    exit 0
fi
exec rustup run "${toolchain%-}" cargo check --locked --all-targets --target-dir "${CARGO_TARGET_DIR:-target}/rust-version"
