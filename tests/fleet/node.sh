#!/bin/bash
# node.sh FOLDER NAME ADDRESS SOCKET
#
# A machine with a Docker engine: with namespaces of its own for the network, processes, mounts and the host's name (the test makes
# them). FOLDER/data is its disk, FOLDER/s the engine's socket for the test, SOCKET the socket that its containers may mount. It
# waits until FOLDER/device names its end of the cable. Killing it ends everything on it, as if its power were cut.
set -euo pipefail

folder=$1 name=$2 address=$3 socket=$4
busybox=$(cd "$(dirname "$0")/../.." && pwd)/target/tools/busybox

"$busybox" hostname "$name"
rm -f "$folder/device"
: >"$folder/up"
until [ -s "$folder/device" ]; do sleep 0.05; done
"$busybox" ip link set lo up
"$busybox" ip link set "$(cat "$folder/device")" name eth0
"$busybox" ip addr add "$address/24" dev eth0
"$busybox" ip link set eth0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
# As after a start of the machine: /run is empty. A socket that is left would be refused.
mount -t tmpfs oz-run /run
mkdir -p /var/lib/docker /etc/docker "$folder/data" "$folder/etc"
mount --bind "$folder/data" /var/lib/docker
mount --bind "$folder/etc" /etc/docker
rm -f "$folder/s"
# Not as process 1, which would have to collect the orphans.
dockerd -H "unix://$folder/s" -H "$socket" --bridge none --iptables=false --ip6tables=false \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${folder##*/}" --raw-logs
