#!/bin/bash
# machine.sh FOLDER
#
# A machine of its own for a Docker engine that makes bridges and firewall rules: in a network and a mount namespace (the test
# makes them), so that the rules end with it. Beyond its only cable, which is its default route, are the site 198.51.100.10 (ports
# 80 and 443) and the metadata service of a cloud, 169.254.169.254 (port 80). The machine is 198.51.100.1: it has a service on port
# 8000 of all its addresses, and a resolver on 127.0.0.1, as systemd-resolved is, that knows no name and writes
# those that it is asked for to FOLDER/lookups. FOLDER/s is the engine's socket. TERM ends all of it.
set -euo pipefail

folder=$1
busybox=$(cd "$(dirname "$0")/../.." && pwd)/target/tools/busybox
engine=

finish() {
    trap '' TERM
    [ -z "$engine" ] || { kill -TERM "$engine" && wait "$engine"; } 2>/dev/null || true
    # shellcheck disable=SC2046 # one process id per word
    kill -KILL $(jobs -p) 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -path "*/${folder##*/}*" -exec rmdir {} \; 2>/dev/null
    exit 0
}
trap finish TERM EXIT

# Starts a program that ends with this script.
start() { setpriv --pdeathsig TERM "$@" >>"$folder/log" 2>&1 & }

"$busybox" ip link set lo up
start unshare --net sh -c 'exec sleep 1000000'
beyond=$!
until [ "$(readlink "/proc/$beyond/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
"$busybox" ip link add eth0 type veth
"$busybox" ip link set veth0 netns "$beyond"
"$busybox" ip addr add 198.51.100.1/24 dev eth0
"$busybox" ip link set eth0 up
"$busybox" ip route add default via 198.51.100.10
there=(nsenter "--net=/proc/$beyond/ns/net" "$busybox")
for address in 198.51.100.10/24 169.254.169.254/32; do "${there[@]}" ip addr add "$address" dev veth0; done
"${there[@]}" ip link set veth0 up

for name in site metadata host; do
    mkdir "$folder/$name"
    echo "$name" >"$folder/$name/index.html"
done
start "${there[@]}" httpd -f -p 198.51.100.10:80 -h "$folder/site"
start "${there[@]}" httpd -f -p 198.51.100.10:443 -h "$folder/site"
start "${there[@]}" httpd -f -p 169.254.169.254:80 -h "$folder/metadata"
start "$busybox" httpd -f -p 8000 -h "$folder/host"

# As text: a name's parts have their lengths before them.
# shellcheck disable=SC2016 # expanded by Perl
resolver='use IO::Socket::INET; open(my $file, ">>", $ARGV[0]) or die; $file->autoflush;
    my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 53, Proto => "udp") or die;
    while (defined $socket->recv(my $query, 512)) {
        my $answer = $query; substr($answer, 2, 2) = "\x81\x83"; $socket->send($answer);
        $query =~ s/[^a-z0-9-]/./g; print $file "$query\n";
    }'
start perl -e "$resolver" "$folder/lookups"
echo nameserver 127.0.0.1 >"$folder/resolv.conf"
mount --bind "$folder/resolv.conf" "$(readlink -f /etc/resolv.conf)"

echo '{}' >"$folder/daemon.json"
start dockerd -H "unix://$folder/s" --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
    --config-file "$folder/daemon.json" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${folder##*/}" --raw-logs
engine=$!
wait "$engine"
