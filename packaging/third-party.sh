#!/bin/bash
# third-party.sh licences | sbom
#
# Prints the software that the static binary WORKER is linked with. `licences` prints a list and each licence text once; `sbom`
# prints an SPDX 2.3 document in tag-value format. The crates come from `cargo tree`, without build dependencies and procedural
# macros, their checksums from Cargo.lock and their licence texts from their sources. The parts that are not crates (musl, the
# unwinder, Rust's standard library) are listed in the file `parts` beside the binary, which static/build.sh writes; their licence
# texts are in licences/. The same sources give the same bytes.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
cargo=${CARGO:-cargo}
worker=$(realpath "${WORKER:?is not set: set it to the static binary, or run \`make dist\`}")
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
cd "$root"
name=oz-agent-worker
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

die() {
    echo "third-party: $*" >&2
    exit 1
}

[ -f "${worker%/*}/parts" ] || die "${worker%/*}/parts, which lists the libraries in the binary, is missing: run \`make static\`"

read -r arch _ <<<"$("$here/architecture.sh" "$worker")"

# Prints name, version, licence and folder of each part that is not a crate: OpenSSL, whose sources are in a crate, and the
# contents of `parts`.
others() {
    local openssl part rest
    openssl=$(lock openssl-src version)
    echo "openssl ${openssl#*+} Apache-2.0 $(folder openssl-src "$openssl")/openssl"
    while read -r part rest; do
        echo "$part $rest $here/licences/$part"
    done <"${worker%/*}/parts"
}

# Prints field $2 of package $1 in Cargo.lock, of the first version if there are several.
lock() {
    awk -v name="\"$1\"" -v field="$2" '
        $1 == "name" { found = $3 == name }
        found && $1 == field { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

# Prints the checksum of version $2 of package $1 in Cargo.lock.
checksum() {
    awk -v name="\"$1\"" -v version="\"$2\"" '
        $1 == "name" { found = $3 == name }
        found && $1 == "version" { found = $3 == version }
        found && $1 == "checksum" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

# Prints the folder with the sources of version $2 of crate $1.
folder() {
    local found
    found=$(find "$registry" -mindepth 2 -maxdepth 2 -type d -name "$1-$2" -print -quit)
    [ -n "$found" ] || die "the sources of $1 $2 are not in $registry: run \`make static\` first"
    echo "$found"
}

# Prints name, version and licence of each linked crate other than the worker itself.
crates() {
    "$cargo" tree --locked --features vendored-openssl --edges normal,no-proc-macro --prefix none --no-dedupe \
        --target "$arch-unknown-linux-musl" --format '{p} {l}' |
        sed -n -e "/^$name /d" -e 's/^\([^ ]*\) v\([^ ]*\) /\1 \2 /' -e 's#/# OR #g' -e p | sort -u
}

# Prints crates and other parts: name, version and licence, a tab, and the folder.
parts() {
    local part
    crates | while read -r part version licence; do
        printf '%s %s %s\t%s\n' "$part" "$version" "$licence" "$(folder "$part" "$version")"
    done
    others | sed 's/ \(\/[^ ]*\)$/\t\1/'
}

licences() {
    local work part from text sum
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the local variable is out of scope when the trap runs
    trap "rm -rf '$work'" EXIT
    parts >"$work/parts"
    while IFS=$'\t' read -r part from; do
        find "$from" -maxdepth 1 -type f | grep -iE '/(licen[sc]e|copying|copyright|notice|unlicense)[^/]*$' |
            sort >"$work/found" || die "found no licence text of $part in $from"
        while read -r text; do
            sum=$(tr -s "[:space:]" " " <"$text" | sha256sum | cut -c 1-16)
            cp "$text" "$work/$sum.text"
            echo "  ${part% "${part#* * }"}" >>"$work/$sum.who"
        done <"$work/found"
    done <"$work/parts"
    echo "Third-party software in $name $version"
    echo
    cut -f 1 "$work/parts" | sed 's/^\([^ ]*\) \([^ ]*\) \(.*\)/  \1 \2: \3/'
    for text in "$work"/*.text; do
        printf '\n%s\n\nLicence of:\n' "-------------------------------------------------------------------------------"
        cat "${text%.text}.who"
        printf '\n'
        tr -d '\r\f' <"$text"
    done
}

# Prints one SPDX package: name, version, licence, package URL type and checksum; the last two can be empty.
package() {
    local part=$1 version=$2 licence=$3 purl=$4 sum=$5 id
    # SPDX allows only letters, digits, dots and dashes in an id.
    id=SPDXRef-${part//_/.}-${version//[^A-Za-z0-9.-]/-}
    cat <<TAGS

PackageName: $part
SPDXID: $id
PackageVersion: $version
PackageDownloadLocation: NOASSERTION
FilesAnalyzed: false
PackageLicenseConcluded: NOASSERTION
PackageLicenseDeclared: $licence
PackageCopyrightText: NOASSERTION
TAGS
    [ -z "$sum" ] || echo "PackageChecksum: SHA256: $sum"
    [ -z "$purl" ] || echo "ExternalRef: PACKAGE-MANAGER purl pkg:cargo/$part@${version//+/%2B}"
    if [ "$part" = $name ]; then
        echo "Relationship: SPDXRef-DOCUMENT DESCRIBES $id"
    else
        echo "Relationship: SPDXRef-$name-$own STATIC_LINK $id"
    fi
}

sbom() {
    local own=$version part licence created
    created=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" +%Y-%m-%dT%H:%M:%SZ)
    cat <<TAGS
SPDXVersion: SPDX-2.3
DataLicense: CC0-1.0
SPDXID: SPDXRef-DOCUMENT
DocumentName: $name-$own-$arch
DocumentNamespace: urn:$name:$own:$arch:$(sha256sum <Cargo.lock | cut -c 1-16)
Creator: Organization: The oz-agent-worker authors ()
Created: $created
TAGS
    package $name "$own" MIT "" ""
    crates | while read -r part version licence; do
        package "$part" "$version" "$licence" cargo "$(checksum "$part" "$version")"
    done
    others | while read -r part version licence; do
        package "$part" "$version" "${licence% /*}" "" ""
    done
}

case "${1:-}" in
licences | sbom) "$1" ;;
*) die "usage: third-party.sh licences | sbom" ;;
esac
