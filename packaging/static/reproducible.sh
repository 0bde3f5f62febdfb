#!/bin/bash
# reproducible.sh
#
# Builds the static binary for ARCH (by default this machine's) twice from scratch, in two temporary folders and with two
# CARGO_HOMEs, and fails if the results differ. Takes twice as long as a first `make static` and downloads everything again.
set -euo pipefail
cd "$(dirname "$0")/../.."
git rev-parse --git-dir >/dev/null || { echo "reproducible: needs a git repository, to copy the tracked files" >&2 && exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CARGO_TARGET_DIR

# Copies the tracked files, with uncommitted changes, to folder $1.
copy_to() {
    mkdir -p "$1"
    git ls-files -z | xargs -0 cp --parents -t "$1"
}

# Builds in folder $1, keeps the binary as $2 and removes the folder.
build_in() {
    local folder=$1 start=$SECONDS
    "$folder/packaging/static/build.sh" >"$work/log" 2>&1 || { cat "$work/log" >&2 && exit 1; }
    cp "$folder/target/static"*/oz-agent-worker "$work/$2"
    rm -rf "$folder"
    echo "reproducible: $(sha256sum <"$work/$2" | cut -d' ' -f1) $(stat -c %s "$work/$2") bytes in $((SECONDS - start)) s"
}

copy_to "$work/a"
copy_to "$work/another/folder/with-a-longer-name"
build_in "$work/a" first
CARGO_HOME=$work/crates build_in "$work/another/folder/with-a-longer-name" second
cmp "$work/first" "$work/second" || { echo "reproducible: the two builds differ" >&2 && exit 1; }
echo "reproducible: both builds gave the same bytes"
