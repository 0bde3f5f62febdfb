#!/bin/bash
# run.sh COMMAND...
#
# Runs COMMAND in a network namespace with a bridge, to which the test connects its nodes, and in a mount namespace in which
# OZ_FLEET_FOLDER is a folder in memory. Nothing reaches the network of this machine, and nothing is left behind. Needs root.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
busybox=$here/../../target/tools/busybox

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" -eq 0 ] || { echo "test-fleet: run this as root: it makes network namespaces and starts engines" >&2 && exit 1; }
    # A short path: that of a socket has at most 108 bytes.
    OZ_FLEET_FOLDER=$(mktemp -d /tmp/oz-fleet.XXXXXX)
    export OZ_FLEET_FOLDER OZ_FLEET_ADDRESS=10.77.0.1
    code=0
    unshare --net --mount bash "$0" --inside "$@" || code=$?
    # The engines have been killed, so they could not remove the control groups of their containers.
    find /sys/fs/cgroup -depth -type d -path "*/${OZ_FLEET_FOLDER##*/}-*" -exec rmdir {} \; 2>/dev/null || true
    rmdir "$OZ_FLEET_FOLDER"
    exit "$code"
fi
shift
"$busybox" ip link set lo up
"$busybox" ip link add ozbridge type bridge
"$busybox" ip addr add "$OZ_FLEET_ADDRESS/24" dev ozbridge
"$busybox" ip link set ozbridge up
mount -t tmpfs -o mode=711 oz-fleet "$OZ_FLEET_FOLDER"
"$@"
