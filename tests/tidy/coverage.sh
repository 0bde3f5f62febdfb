#!/bin/bash
# coverage.sh [CARGO TEST ARGUMENTS...]
#
# Runs the tests with instrumented code and prints the coverage of each file; the lines are shown in
# target/coverage/html. Without arguments it runs all tests. A killed worker writes no coverage.
#
# LLVM's tools must have the major version of rustc's LLVM: rustup's llvm-tools, or Debian's llvm-VERSION.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${CARGO_TARGET_DIR:-target}/coverage"
folder=$(cd "${CARGO_TARGET_DIR:-target}/coverage" && pwd)
cargo=${CARGO:-cargo}
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
rustup_tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin

llvm() {
    local tool=$1
    shift
    if [ -x "$rustup_tools/$tool" ]; then
        "$rustup_tools/$tool" "$@"
    else
        "$tool-$major" "$@"
    fi
}

export RUSTFLAGS="-Cinstrument-coverage" CARGO_TARGET_DIR=$folder/build LLVM_PROFILE_FILE=$folder/raw/%p-%m.profraw
rm -rf "$folder/raw"
"$cargo" test --locked --lib --test all --no-run 2>&1 | tee "$folder/log" >&2
tests/support/engine.sh run --private "$cargo" test --locked --lib --test all "$@"

# --failure-mode: a killed worker leaves an incomplete profile.
llvm llvm-profdata merge --sparse --failure-mode=all "$folder"/raw/*.profraw -o "$folder/merged"
objects=(-object "$folder/build/debug/oz-agent-worker")
while read -r binary; do
    objects+=(-object "$binary")
done < <(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$folder/log")
options=("${objects[@]}" "-instr-profile=$folder/merged" '-ignore-filename-regex=/registry/|/rustc/|/tests/|tests\.rs$|/fuzz')
llvm llvm-cov show "${options[@]}" --format=html --output-dir="$folder/html"
llvm llvm-cov report "${options[@]}" --show-region-summary=false --show-branch-summary=false
