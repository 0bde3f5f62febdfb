#!/bin/bash
# run.sh SECONDS [TARGET...]
#
# Runs each fuzz target, or each named one, for SECONDS. Installs cargo-fuzz into target/tools if it is missing. Builds, new corpus
# inputs and failing inputs go to target/fuzz; the seeds in tests/fuzz/corpus are only read. AddressSanitizer is used if the
# compiler has its runtime (Debian's has not). RUSTC_BOOTSTRAP lets a stable compiler use the sanitizer and coverage options.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
version=0.13.1
cargo=${CARGO:-cargo}
built=${CARGO_TARGET_DIR:-$root/target}/fuzz
export PATH=$PATH:$root/target/tools/bin RUSTC_BOOTSTRAP=1
seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift

if ! command -v cargo-fuzz >/dev/null; then
    echo "fuzz: installing cargo-fuzz $version into target/tools" >&2
    env -u RUSTC_BOOTSTRAP "$cargo" install --quiet --locked cargo-fuzz --version "$version" --root target/tools
fi
sanitizer=none
ls "$("${RUSTC:-rustc}" --print target-libdir)"/librustc*rt.asan.a >/dev/null 2>&1 && sanitizer=address
fuzz() {
    local command=$1
    shift
    "$cargo" fuzz "$command" --fuzz-dir tests/fuzz --target-dir "$built" --sanitizer "$sanitizer" "$@"
}

named=("$@")
[ $# -gt 0 ] || mapfile -t all < <(sed -n 's/^    ("\([a-z_]*\)", [a-z_]*),$/\1/p' src/fuzz/mod.rs)
[ $# -gt 0 ] || set -- "${all[@]}"
echo "fuzz: building with sanitizer=$sanitizer" >&2
if [ ${#named[@]} -eq 0 ]; then fuzz build; fi
for target in "${named[@]}"; do fuzz build "$target"; done
for target in "$@"; do
    mkdir -p "$built/corpus/$target" "$built/artifacts/$target"
    log=$built/$target.log
    status=0
    # New inputs go to the first folder.
    fuzz run "$target" "$built/corpus/$target" "tests/fuzz/corpus/$target" -- -max_total_time="$seconds" \
        -artifact_prefix="$built/artifacts/$target/" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    cov=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n1)
    echo "fuzz: target=$target runs=${runs:-0} seconds=$seconds cov=${cov:-0} failed=$status"
    if [ "$status" -ne 0 ]; then
        tail -n 60 "$log" >&2
        echo "fuzz: $target failed; the input is in $built/artifacts/$target, the log in $log" >&2
        exit 1
    fi
done
