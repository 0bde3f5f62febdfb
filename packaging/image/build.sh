#!/bin/bash
# build.sh FOLDER NAME BINARY...
#
# Writes an image named NAME for each static binary, and prints the paths:
#   - FOLDER/oz-agent-worker-VERSION-ARCH.tar for each, for `docker load` or `podman load`;
#   - FOLDER/oz-agent-worker-VERSION-oci.tar, with all of them and an index, to publish: each engine pulls the image of its platform.
#
# An image contains only the static binary and this machine's CA certificates: no shell, no user and no writable folder. Needs no
# engine. The same commit, binaries and certificates give the same bytes.
set -euo pipefail

usage="usage: build.sh FOLDER NAME:TAG BINARY..."
folder=${1:?$usage} name=${2:?$usage} first=${3:?$usage}
source=$(cd "$(dirname "$0")/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$source/Cargo.toml")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || { echo "image: $authorities is missing or empty: install ca-certificates" >&2 && exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blobs=$work/oci/blobs/sha256
mkdir -p "$folder" "$blobs"

# Packs folder $1 into $2, without names, owners, modes or times of this machine.
pack() {
    (cd "$1" && tar --create --file "$2" --format gnu --sort name --owner 0 --group 0 --numeric-owner \
        --mode u=rwX,go=rX --mtime "@$SOURCE_DATE_EPOCH" -- *)
}

# Packs folder $1 into $folder/$2 and prints the path.
finish() {
    pack "$1" "$work/image.tar"
    mv "$work/image.tar" "$folder/$2"
    echo "$folder/$2"
}

# Adds file $2 of media type $1 to the blobs, and prints its descriptor with the members $3.
descriptor() {
    local digest
    digest=$(sha256sum <"$2" | cut -d' ' -f1)
    cp "$2" "$blobs/$digest"
    echo "{\"mediaType\": \"$1\", \"digest\": \"sha256:$digest\", \"size\": $(stat -c %s "$2")${3:-}}"
}

# Makes the image of the binary $1 for `docker load`, adds it to the blobs and its descriptor to $work/manifests.
image() {
    local binary=$1 arch debian root=$work/root image=$work/image layer config
    read -r arch debian <<<"$("$source/packaging/architecture.sh" "$binary")"
    rm -rf "$root" "$image"
    mkdir -p "$root/usr/local/bin" "$root${authorities%/*}" "$image"
    cp "$binary" "$root/usr/local/bin/oz-agent-worker"
    cp -L "$authorities" "$root$authorities"
    pack "$root" "$image/layer.tar"
    layer=$(sha256sum <"$image/layer.tar" | cut -d' ' -f1)
    # PATH is set so that a mounted credential helper is found.
    cat >"$image/config.json" <<EOF
{"architecture": "$debian", "os": "linux", "created": "$created",
"config": {"Entrypoint": ["/usr/local/bin/oz-agent-worker"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "WorkingDir": "/",
"Labels": {"org.opencontainers.image.title": "oz-agent-worker", "org.opencontainers.image.version": "$version"}},
"rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}, "history": [{"created": "$created"}]}
EOF
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$name\"], \"Layers\": [\"layer.tar\"]}]" >"$image/manifest.json"
    finish "$image" "oz-agent-worker-$version-$arch.tar"
    gzip -9n <"$image/layer.tar" >"$work/layer.tar.gz"
    layer=$(descriptor application/vnd.oci.image.layer.v1.tar+gzip "$work/layer.tar.gz")
    config=$(descriptor application/vnd.oci.image.config.v1+json "$image/config.json")
    cat >"$work/manifest.json" <<EOF
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": $config, "layers": [$layer]}
EOF
    descriptor application/vnd.oci.image.manifest.v1+json "$work/manifest.json" \
        ", \"platform\": {\"architecture\": \"$debian\", \"os\": \"linux\"}" >>"$work/manifests"
}

for binary in "$first" "${@:4}"; do image "$binary"; done
cat >"$work/index.json" <<EOF
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [$(paste -sd, "$work/manifests")]}
EOF
index=$(descriptor application/vnd.oci.image.index.v1+json "$work/index.json" \
    ", \"annotations\": {\"io.containerd.image.name\": \"docker.io/library/$name\", \"org.opencontainers.image.ref.name\": \"${name##*:}\"}")
echo "{\"schemaVersion\": 2, \"manifests\": [$index]}" >"$work/oci/index.json"
echo '{"imageLayoutVersion": "1.0.0"}' >"$work/oci/oci-layout"
finish "$work/oci" "oz-agent-worker-$version-oci.tar"
