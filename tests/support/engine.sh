#!/bin/bash
# engine.sh run [--private] COMMAND...
# engine.sh check
#
# `check` fails if `run` would find no engine, before anything is installed or built.
#
# `run` runs COMMAND with OZ_TEST_DOCKER_HOST and DOCKER_HOST set to a Docker engine, the first available of these:
#   - the engine that OZ_TEST_DOCKER_HOST names;
#   - an engine that answers at DOCKER_HOST or a default socket (with --private only if no private engine can be started);
#   - a private engine, for root: a dockerd with all its files in a temporary folder, ended and removed afterwards unless this
#     script is killed with KILL. It makes no firewall rule and leaves nothing behind.
#
# With --private the engine and COMMAND run in a network namespace that has only a loopback: COMMAND reaches only servers that it
# starts itself, and task containers have no network. With its files in memory, a container then takes a quarter of the
# processor time that it takes with a bridge and a disk. Without --private the engine gets a separate bridge.
# `--bridge none` is for the namespace only: elsewhere it deletes the docker0 of another engine.
#
# For a private engine:
#   OZ_TEST_ENGINE_USR      a folder that its processes have in place of /usr: an engine that is not installed, with its libraries
#   OZ_TEST_ENGINE_CONFIG   the text of its daemon.json
#
# Returns COMMAND's exit code.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../.." && pwd)/target/tools
folder=
bridge=
daemon=
checking=
# Whether this script runs in its own network namespace already.
alone=
command_pid=
# The command in front of the engine's, which gives it another /usr.
within=()

say() { echo "engine: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Whether an engine answers at $1. In Perl, which every Debian has and which can open Unix sockets.
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

# Prints the first address at which an engine answers.
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

# Prints why no private engine can be started here, or nothing if one can.
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

# Prints the cgroup folders of the private engine's containers, innermost first (v1 has one tree per controller).
cgroups() {
    find /sys/fs/cgroup -depth -type d -path "*/$(basename "$folder")*" 2>/dev/null
}

# Prints the processes of the private engine: those that have its folder in their command line.
processes() {
    local entry
    for entry in /proc/[0-9]*; do
        [ "${entry#/proc/}" != "$$" ] && grep -qsaF "$folder/" "$entry/cmdline" && echo "${entry#/proc/}"
    done
}

stop_containers() {
    local group
    cgroups | while read -r group; do
        # shellcheck disable=SC2046 # one process id per word
        kill -KILL $(cat "$group/cgroup.procs" 2>/dev/null) 2>/dev/null
    done
}

# Waits up to $1 tenths of a second until process $2 has ended; fails if it has not.
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
    # Containers first: an engine waits ten seconds for each that ignores TERM.
    stop_containers
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null
        ended_within 150 "$daemon"
    fi
    stop_containers
    left=$(processes)
    # shellcheck disable=SC2086 # one process id per word
    [ -z "$left" ] || kill -KILL $left 2>/dev/null
    awk -v top="$folder" '$5 == top || index($5, top "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r mount; do umount -l "$mount" 2>/dev/null; done
    [ -z "$bridge" ] || [ -n "$alone" ] || "$tools/busybox" ip link del "$bridge" 2>/dev/null
    cgroups | while read -r group; do rmdir "$group" 2>/dev/null; done
    rm -rf "$folder" || say "cannot remove $folder"
    exit "$code"
}

# Makes a bridge, with a name from the folder's and an address from the process id, which is unlikely to be in use.
make_bridge() {
    bridge=oz${folder##*.}
    "$tools/busybox" ip link add "$bridge" type bridge &&
        "$tools/busybox" ip addr add "10.$((200 + $$ % 50)).$(($$ / 50 % 250)).1/24" dev "$bridge" &&
        "$tools/busybox" ip link set "$bridge" up
}

# Starts this script again in a new network namespace; returns if there can be none.
leave_network() {
    unshare --net true 2>/dev/null || return 0
    say "starting a private engine without a network"
    exec unshare --net bash "$here/engine.sh" run --alone "$@"
}

# Puts the folder into memory if 4 GiB are free: nothing in it must survive a crash. Files take memory only as they are written.
keep_in_memory() {
    local free
    free=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
    [ "${free:-0}" -lt 4096 ] || mount -t tmpfs -o "mode=711,size=$((free / 2))m" oz-engine "$folder" 2>/dev/null || true
}

# Installs the packages of a private engine and downloads the crates, before a network namespace cuts off the mirrors.
install_engine() {
    "$here/setup.sh" engine || exit 1
    [ "${command[0]##*/}" = cargo ] || return 0
    "$here/setup.sh" tests || exit 1
    "${command[0]}" fetch --locked --quiet --target "$(rustc -vV | sed -n 's/^host: //p')" ||
        say "cannot fetch all crates; using the local ones"
}

# Prints the version of the private engine's dockerd, without what follows the first dot.
engine_version() { "${within[@]}" dockerd --version | sed -n 's/^Docker version \([0-9]*\).*/\1/p'; }

# Starts a private engine and sets $host to its address.
start_private() {
    local left=600 died
    # A short path: a socket's has at most 108 bytes.
    folder=$(mktemp -d /tmp/oz-engine.XXXXXX) || die "cannot make a folder in /tmp"
    host=unix://$folder/s
    keep_in_memory
    if [ -n "${OZ_TEST_ENGINE_USR:-}" ]; then
        # shellcheck disable=SC2016 # expanded by the inner shell
        within=("$tools/busybox" unshare -m "$tools/busybox" sh -c '"$0" mount --bind "$1" /usr && shift && exec "$@"'
            "$tools/busybox" "$OZ_TEST_ENGINE_USR")
    fi
    if [ -n "$alone" ]; then
        "$tools/busybox" ip link set lo up || die "cannot set up the loopback of the network namespace"
        # Without it the engine warns about each container.
        echo 1 >/proc/sys/net/ipv4/ip_forward || say "cannot enable IP forwarding; the engine will warn about it"
        # Docker 26 and newer cannot rename a running container without a bridge.
        if [ "$(engine_version)" -ge 26 ] 2>/dev/null; then
            make_bridge || die "cannot make a network bridge for this Docker"
        else
            bridge=none
        fi
    else
        make_bridge || die "cannot make a network bridge, so no private engine can be started here"
    fi
    # Keeps out the machine's /etc/docker/daemon.json.
    echo "${OZ_TEST_ENGINE_CONFIG:-"{}"}" >"$folder/daemon.json"
    # A separate session, so that Ctrl-C reaches the command but not the engine, which the command still needs. The engine ends with
    # this script even if that is killed.
    local with=(setsid)
    command -v setpriv >/dev/null && with+=(setpriv --pdeathsig TERM)
    "${with[@]}" "${within[@]}" dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" -H "$host" \
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
            die "the private dockerd $([ -n "$died" ] && echo ended || echo "did not answer in 60 s"); its last lines are above"
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
    [ -z "$why" ] || [ ! -S /var/run/docker.sock ] || [ -w /var/run/docker.sock ] ||
        die "no Docker engine: this user has no right to use /var/run/docker.sock. Run" \
            "\`sudo usermod -aG docker $(id -un)\` and log in again, or run this as root."
    [ -z "$why" ] || die "no Docker engine: none answers at DOCKER_HOST or the default socket, and a private one" \
        "cannot be started ($why). Start Docker, set OZ_TEST_DOCKER_HOST to an engine, or run this as root on Debian."
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
# `leave_network` replaces --private with this option.
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
# The command gets a Ctrl-C too, and its exit code is the result.
trap ':' INT
export OZ_TEST_DOCKER_HOST=$host DOCKER_HOST=$host
# In the background, so that this script reacts to TERM at once. bash would make such a command ignore INT and QUIT and read
# nothing.
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
