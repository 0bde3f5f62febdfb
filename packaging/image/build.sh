#!/bin/bash
# build.sh BINARY FOLDER NAME
#
# Makes FOLDER/oz-agent-worker-VERSION.tar, an image called NAME that `docker load` and `podman load` take, and prints its
# path. In it are the static binary, the authorities that this machine trusts, and nothing else: no shell, no user, no
# folder that is written to. No engine is needed for it. The same commit and authorities give the same bytes.
set -euo pipefail

binary=${1:?the static binary} folder=${2:?where the image goes} name=${3:?the image as NAME:TAG}
source=$(cd "$(dirname "$0")/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/Cargo.toml")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || { echo "image: $authorities is missing" >&2 && exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Without anything of this machine or of now.
pack() {
    (cd "$1" && tar --create --file "$2" --format gnu --sort name --owner 0 --group 0 --numeric-owner \
        --mode u=rwX,go=rX --mtime "@$SOURCE_DATE_EPOCH" -- *)
}

mkdir -p "$work/root/usr/local/bin" "$work/root${authorities%/*}" "$work/image"
cp "$binary" "$work/root/usr/local/bin/oz-agent-worker"
cp -L "$authorities" "$work/root$authorities"
pack "$work/root" "$work/image/layer.tar"
layer=$(sha256sum <"$work/image/layer.tar" | cut -d' ' -f1)
# `PATH` is where a registry's credential helper would be mounted.
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
