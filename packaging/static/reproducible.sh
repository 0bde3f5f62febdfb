#!/bin/bash
# reproducible.sh
#
# Builds the static binary twice from nothing, in two folders and with two folders of crates, and compares the results.
# Takes twice as long as a first `make static`, and the same downloads; the folders are temporary.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CARGO_TARGET_DIR

copy_to() {
    mkdir -p "$1"
    git ls-files -z | xargs -0 cp --parents -t "$1"
}

build_in() {
    local folder=$1 start=$SECONDS
    "$folder/packaging/static/build.sh" >"$work/log" 2>&1 || { cat "$work/log" >&2 && exit 1; }
    cp "$folder/target/static/oz-agent-worker" "$work/$2"
    rm -rf "$folder"
    echo "reproducible: $(sha256sum <"$work/$2" | cut -d' ' -f1) $(stat -c %s "$work/$2") bytes in $((SECONDS - start)) s"
}

copy_to "$work/a"
copy_to "$work/another/folder/with-a-longer-name"
build_in "$work/a" first
CARGO_HOME=$work/crates build_in "$work/another/folder/with-a-longer-name" second
cmp "$work/first" "$work/second"
echo "reproducible: the same bytes twice"
