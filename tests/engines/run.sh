#!/bin/bash
# run.sh
#
# Runs the tests of whole tasks on the engines of three Debian releases, and prints a table. Each engine is unpacked into
# target/engines, and its processes have the /usr of its release (see unpack.sh and engine.sh). What cannot be had is said and
# skipped. Fails if a test fails.
#
#   ENGINES="docker-13 podman-12"    only these
set -uo pipefail

cd "$(dirname "$0")/../.." || exit 1
target=${CARGO_TARGET_DIR:-target}
target=$(mkdir -p "$target/engines" && cd "$target" && pwd)
engines=$target/engines
failed=
table=
# The tests of whole tasks in which the engine matters.
tasks=()
for module in adopt cancel concurrency engine_faults executions output prune pull reconcile sidecar_volumes start stop \
    task_lifecycle warm; do
    tasks+=("worker::$module")
done

say() { echo "test-engines: $*" >&2; }

# Adds a line to the table.
row() {
    table+=$(printf '%-34s %-14s %s' "$1" "$2" "$3")$'\n'
    say "$1: $3"
}

is_wanted() { [ -z "${ENGINES:-}" ] || [[ " $ENGINES " == *" $1 "* ]]; }

# Runs a command with the /usr of release $1.
within() {
    local usr=$engines/$1/usr busybox=$target/tools/busybox
    shift
    # shellcheck disable=SC2016 # expanded by the inner shell
    "$busybox" unshare -m "$busybox" sh -c '"$0" mount --bind "$1" /usr && shift && exec "$@"' "$busybox" "$usr" "$@"
}

# Prints the version of program $2 of release $1.
version() { within "$1" "$2" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9.]*\).*/\1/p' | head -n 1; }

# run NAME VERSION COMMAND...: runs the tests, and adds their result to the table.
run() {
    local name=$1 version=$2 log start=$SECONDS code=0 passed
    shift 2
    log=${name//[^A-Za-z0-9]/-}
    log=$engines/${log,,}.log
    "$@" >"$log" 2>&1 || code=$?
    passed=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 passed, \2 failed/p' "$log" | tail -n 1)
    row "$name" "$version" "${passed:-no test ran} in $((SECONDS - start)) s$([ $code -eq 0 ] || echo ", see $log")"
    if [ $code -ne 0 ]; then
        failed=yes
        sed -n '/^failures:$/,$p' "$log" | grep -E '^    [a-z_0-9:]+$' | sort -u >&2
    fi
}

# unpack NUMBER SUITE: unpacks the engines of a release unless they are there; says why not.
unpack() {
    local log=$engines/unpack-$2.log
    [ -e "$engines/$2/usr/complete" ] || say "unpacking the engines of Debian $1 ($2)"
    tests/engines/unpack.sh "$2" "$engines/$2" 2>"$log" && return 0
    row "Docker and Podman of Debian $1" - "not available: $(tail -n 1 "$log")"
    return 1
}

cargo=${CARGO:-cargo}
test=("$cargo" test --locked --test all --)
for release in 12:bookworm 13:trixie 14:forky; do
    number=${release%:*} suite=${release#*:}
    is_wanted "docker-$number" || is_wanted "docker-$number-containerd" || is_wanted "podman-$number" || continue
    unpack "$number" "$suite" || continue
    export OZ_TEST_ENGINE_USR=$engines/$suite/usr
    docker=$(version "$suite" dockerd)
    if is_wanted "docker-$number"; then
        run "Docker of Debian $number" "$docker" tests/support/engine.sh run --private "${test[@]}" "${tasks[@]}"
    fi
    # Docker's second image store. Older releases have it only as an experiment.
    if [ "${docker%%.*}" -ge 28 ] && is_wanted "docker-$number-containerd"; then
        OZ_TEST_ENGINE_CONFIG='{"features": {"containerd-snapshotter": true}}' run "Docker of Debian $number, containerd store" \
            "$docker" tests/support/engine.sh run --private "${test[@]}" "${tasks[@]}"
    fi
    if is_wanted "podman-$number"; then
        run "Podman of Debian $number" "$(version "$suite" podman)" \
            tests/support/engine.sh run --private "${test[@]}" worker::podman
    fi
done
unset OZ_TEST_ENGINE_USR
if is_wanted change; then
    if [ -e "$engines/bookworm/usr/complete" ] && [ -e "$engines/trixie/usr/complete" ] &&
        [ -e "$engines/forky/usr/complete" ]; then
        OZ_TEST_ENGINES=$engines run "engine changed under a task" - \
            tests/support/engine.sh run --private "${test[@]}" --ignored faults::engine_change
    else
        row "engine changed under a task" - "not available: it needs the engines of all three releases"
    fi
fi
printf '\n%-34s %-14s %s\n%s' engine version result "$table"
[ -z "$failed" ]
