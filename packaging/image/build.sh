#!/bin/bash
# build.sh BINARY FOLDER NAME
#
# Writes FOLDER/oz-agent-worker-VERSION.tar, an image named NAME for `docker load` or `podman load`, and prints its path. The image
# contains only the static binary and this machine's CA certificates: no shell, no user and no writable folder. Needs no engine.
# The same commit and certificates give the same bytes.
set -euo pipefail

usage="usage: build.sh BINARY FOLDER NAME:TAG"
binary=${1:?$usage} folder=${2:?$usage} name=${3:?$usage}
source=$(cd "$(dirname "$0")/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/Cargo.toml")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || { echo "image: $authorities is missing or empty: install ca-certificates" >&2 && exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Packs folder $1 into $2, without names, owners, modes or times of this machine.
pack() {
    (cd "$1" && tar --create --file "$2" --format gnu --sort name --owner 0 --group 0 --numeric-owner \
        --mode u=rwX,go=rX --mtime "@$SOURCE_DATE_EPOCH" -- *)
}

mkdir -p "$work/root/usr/local/bin" "$work/root${authorities%/*}" "$work/image"
cp "$binary" "$work/root/usr/local/bin/oz-agent-worker"
cp -L "$authorities" "$work/root$authorities"
pack "$work/root" "$work/image/layer.tar"
layer=$(sha256sum <"$work/image/layer.tar" | cut -d' ' -f1)
# PATH is set so that a mounted credential helper is found.
cat >"$work/image/config.json" <<EOF
{"architecture": "amd64", "os": "linux", "created": "$created",
"config": {"Entrypoint": ["/usr/local/bin/oz-agent-worker"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "WorkingDir": "/",
"Labels": {"org.opencontainers.image.title": "oz-agent-worker", "org.opencontainers.image.version": "$version"}},
"rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}, "history": [{"created": "$created"}]}
EOF
echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$name\"], \"Layers\": [\"layer.tar\"]}]" >"$work/image/manifest.json"
mkdir -p "$folder"
pack "$work/image" "$work/image.tar"
mv "$work/image.tar" "$folder/oz-agent-worker-$version.tar"
echo "$folder/oz-agent-worker-$version.tar"
