#!/bin/bash
# engine.sh run [--private] COMMAND...
# engine.sh check
#
# `check` only says, before anything is built for it, when `run` will find no engine.
#
# Runs COMMAND with a Docker engine: OZ_TEST_DOCKER_HOST and DOCKER_HOST name it. It is, in this order,
#   - the one that OZ_TEST_DOCKER_HOST names already;
#   - one that answers at DOCKER_HOST or the default socket (with --private only when none can be started);
#   - a private one, for root: a dockerd with all its files in a temporary folder, ended and removed afterwards on every
#     path but a KILL. It makes no firewall rule, so nothing of it stays on the machine.
#
# With --private that engine and COMMAND have a network of their own, which is nothing but a loopback: COMMAND reaches
# only what it starts itself, and task containers have no network at all. That and files in memory cost a quarter of
# the processor time that a container takes on a bridge and a disk. Otherwise the engine gets a bridge of its own.
# `--bridge none` is for such a network only: anywhere else it deletes the docker0 of another engine.
# The exit code is COMMAND's.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../.." && pwd)/target/tools
folder=
bridge=
daemon=
checking=
# Whether this script is in a network of its own already.
alone=
command_pid=

say() { echo "engine: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Whether an engine answers at $1. Perl is on every Debian, and knows Unix sockets.
answers() {
    perl -e '
        use IO::Socket::UNIX; use IO::Socket::INET;
        alarm 5; $SIG{PIPE} = "IGNORE";
        my ($kind, $where) = $ARGV[0] =~ m{^(unix|tcp|http)://(.+?)/?$} or exit 1;
        my $s = $kind eq "unix" ? IO::Socket::UNIX->new(Peer => $where) : IO::Socket::INET->new(PeerAddr => $where);
        $s or exit 1;
        print $s "GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n"; $s->flush;
        exit((<$s> // "") =~ m{^HTTP/1\.. 200} ? 0 : 1);
    ' "$1" 2>/dev/null
}

# The first engine that answers at one of the usual places.
existing() {
    local candidate
    for candidate in "${DOCKER_HOST:-}" unix:///var/run/docker.sock \
        "unix://${XDG_RUNTIME_DIR:-/nonexistent}/docker.sock" "unix://${HOME:-/nonexistent}/.docker/run/docker.sock"; do
        if [ -n "$candidate" ] && answers "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# Why no private engine can be started here; empty when one can.
obstacle() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "not root"
    elif [ ! -e /sys/fs/cgroup/cgroup.controllers ] && [ ! -e /sys/fs/cgroup/memory/cgroup.procs ]; then
        echo "/sys/fs/cgroup is not usable: no cgroup file system is mounted there"
    elif ! probe_cgroup; then
        echo "/sys/fs/cgroup is not usable: it cannot be written to"
    elif ! command -v dockerd >/dev/null && ! command -v apt-get >/dev/null; then
        echo "dockerd is not installed, and there is no apt-get to install it with"
    fi
}

probe_cgroup() {
    local probe=/sys/fs/cgroup
    [ -e "$probe/cgroup.controllers" ] || probe=$probe/memory
    mkdir "$probe/oz-probe-$$" 2>/dev/null && rmdir "$probe/oz-probe-$$"
}

# All cgroup folders of the private engine's containers, innermost first (v1 has one tree a controller).
cgroups() {
    find /sys/fs/cgroup -depth -type d -path "*/$(basename "$folder")*" 2>/dev/null
}

# Every process of the private engine: those that name its folder, which nobody else does.
processes() {
    local entry
    for entry in /proc/[0-9]*; do
        [ "${entry#/proc/}" != "$$" ] && grep -qsaF "$folder/" "$entry/cmdline" && echo "${entry#/proc/}"
    done
}

stop_containers() {
    local group
    cgroups | while read -r group; do
        # shellcheck disable=SC2046 # one process id a word
        kill -KILL $(cat "$group/cgroup.procs" 2>/dev/null) 2>/dev/null
    done
}

# Waits up to $1 tenths of a second for process $2 to end.
ended_within() {
    local left=$1
    while kill -0 "$2" 2>/dev/null; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

clean_up() {
    local code=$? left
    trap '' HUP INT TERM
    [ -z "$command_pid" ] || ! kill -TERM "$command_pid" 2>/dev/null || ended_within 300 "$command_pid" ||
        kill -KILL "$command_pid" 2>/dev/null
    [ -n "$folder" ] || exit "$code"
    # Containers first: an engine waits ten seconds for each that does not heed TERM.
    stop_containers
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null
        ended_within 150 "$daemon"
    fi
    stop_containers
    left=$(processes)
    # shellcheck disable=SC2086 # one process id a word
    [ -z "$left" ] || kill -KILL $left 2>/dev/null
    awk -v top="$folder" '$5 == top || index($5, top "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r mount; do umount -l "$mount" 2>/dev/null; done
    [ -z "$bridge" ] || [ -n "$alone" ] || "$tools/busybox" ip link del "$bridge" 2>/dev/null
    cgroups | while read -r group; do rmdir "$group" 2>/dev/null; done
    rm -rf "$folder" || say "cannot remove $folder"
    exit "$code"
}

# A bridge with an address that is hardly in use; both follow from the name of the folder and the process id.
make_bridge() {
    bridge=oz${folder##*.}
    "$tools/busybox" ip link add "$bridge" type bridge &&
        "$tools/busybox" ip addr add "10.$((200 + $$ % 50)).$(($$ / 50 % 250)).1/24" dev "$bridge" &&
        "$tools/busybox" ip link set "$bridge" up
}

# Starts this script again in a network of its own; returns where there can be none.
leave_network() {
    unshare --net true 2>/dev/null || return 0
    say "starting a private engine in a network of its own"
    exec unshare --net bash "$here/engine.sh" run --alone "$@"
}

# An engine writes much that nobody needs after a crash. The memory is taken as files come, and there is enough.
keep_in_memory() {
    local free
    free=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
    [ "${free:-0}" -lt 4096 ] || mount -t tmpfs -o "mode=711,size=$((free / 2))m" oz-engine "$folder" 2>/dev/null || true
}

# Installs what a private engine needs. A network of its own has no route to a package mirror, so this comes first.
install_engine() {
    command -v dockerd >/dev/null || "$here/setup.sh" install docker.io iptables || die "cannot install docker.io"
    "$here/setup.sh" || exit 1
}

# Starts a private engine and leaves its address in $host.
start_private() {
    local left=600 died
    # A short path: that of a socket has at most 108 bytes.
    folder=$(mktemp -d /tmp/oz-engine.XXXXXX) || die "cannot make a folder in /tmp"
    host=unix://$folder/s
    keep_in_memory
    if [ -n "$alone" ]; then
        "$tools/busybox" ip link set lo up || die "cannot set up the loopback of a network of its own"
        # Else the engine warns of it with each container. A new network has it as the machine has it.
        echo 1 >/proc/sys/net/ipv4/ip_forward || say "cannot turn forwarding on; the engine will warn of it"
        bridge=none
    else
        make_bridge || die "cannot make a network bridge, so no private engine can be started here"
    fi
    # Instead of the machine's own settings.
    echo '{}' >"$folder/daemon.json"
    # A session of its own, so that Ctrl-C reaches the command and not the engine it still needs; and the engine ends
    # with this script even when that is killed.
    local with=(setsid)
    command -v setpriv >/dev/null && with+=(setpriv --pdeathsig TERM)
    "${with[@]}" dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" -H "$host" \
        --bridge "$bridge" --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$(basename "$folder")" \
        --config-file "$folder/daemon.json" --raw-logs >"$folder/log" 2>&1 </dev/null &
    daemon=$!
    until answers "$host"; do
        died=
        kill -0 "$daemon" 2>/dev/null || died=yes
        left=$((left - 1))
        if [ -n "$died" ] || [ "$left" -le 0 ]; then
            tail -n 20 "$folder/log" >&2
            die "the private dockerd ${died:+ended}${died:-did not answer in time}; its last lines are above"
        fi
        sleep 0.1
    done
}

find_engine() {
    local private=$1 why
    host=${OZ_TEST_DOCKER_HOST:-}
    if [ -n "$host" ]; then
        answers "$host" || die "no engine answers at OZ_TEST_DOCKER_HOST=$host"
        return
    fi
    why=$(obstacle)
    if { [ -z "$private" ] || [ -n "$why" ]; } && host=$(existing); then
        [ -n "$checking" ] || say "using the engine at $host"
        return
    fi
    [ -z "$why" ] || die "no Docker engine: none answers at DOCKER_HOST or the default socket, and a private one" \
        "cannot be started ($why). Start Docker, or name an engine in OZ_TEST_DOCKER_HOST, or run this as root on Debian."
    [ -z "$checking" ] || return 0
    [ -n "$alone" ] || install_engine
    [ -n "$alone" ] || [ -z "$private" ] || leave_network "${command[@]}"
    [ -n "$alone" ] || say "starting a private engine"
    start_private
}

if [ "${1:-}" = check ]; then
    checking=yes
    find_engine ""
    exit 0
fi
[ "${1:-}" = run ] || die "usage: engine.sh check | run [--private] COMMAND..."
shift
private=
case "${1:-}" in
--private)
    private=yes
    shift
    ;;
# What --private becomes by `leave_network`.
--alone)
    private=yes
    alone=yes
    shift
    ;;
esac
[ $# -gt 0 ] || die "usage: engine.sh run [--private] COMMAND..."

command=("$@")

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM
trap 'exit 130' INT
find_engine "$private"
# From here a Ctrl-C is the command's business: it has got it too, and its exit code says what came of it.
trap ':' INT
export OZ_TEST_DOCKER_HOST=$host DOCKER_HOST=$host
# In the background, so that a TERM is heeded at once; that would make it ignore Ctrl-C and lose its input.
env --default-signal=INT,QUIT "$@" <&0 &
command_pid=$!
code=0
while :; do
    wait "$command_pid"
    code=$?
    kill -0 "$command_pid" 2>/dev/null || break
done
command_pid=
exit "$code"
