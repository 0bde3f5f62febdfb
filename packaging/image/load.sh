#!/bin/bash
# load.sh FILE
#
# Loads an image file into the engine at DOCKER_HOST, or into the first engine that answers at a default socket. Does not need the
# docker command, but does not speak TLS or ssh; for those engines use `docker load`.
set -euo pipefail

file=${1:?usage: load.sh FILE}
command -v perl >/dev/null || {
    echo "image: perl is missing, so $file was not loaded: install perl, or run \`docker load -i $file\`" >&2
    exit 1
}

# request HOST METHOD-AND-PATH BODY-FILE: prints the response; fails unless it is a 200 without an error. Written in Perl, which
# every Debian has and which can connect to a Unix socket. An HTTP/1.0 response ends with its connection.
request() {
    perl -e '
        use strict; use IO::Socket::UNIX; use IO::Socket::INET;
        my ($host, $head, $file) = @ARGV;
        $SIG{PIPE} = "IGNORE";
        my ($kind, $where) = $host =~ m{^(unix|tcp|http)://(.+?)/?$} or exit 1;
        my $s = $kind eq "unix" ? IO::Socket::UNIX->new(Peer => $where)
            : IO::Socket::INET->new(PeerAddr => $where, PeerPort => 2375);
        $s or exit 1;
        print $s "$head HTTP/1.0\r\nHost: engine\r\nContent-Type: application/x-tar\r\nContent-Length: ", -s $file, "\r\n\r\n";
        open(my $body, "<:raw", $file) or die "$file: $!\n";
        while (read($body, my $block, 1 << 16)) { print $s $block or last }
        $s->flush;
        local $/;
        my $answer = <$s> // "";
        print $answer;
        exit($answer =~ m{^HTTP/1\.. 200} && $answer !~ /"errorDetail"/ ? 0 : 1);
    ' "$@"
}

candidates=(unix:///var/run/docker.sock "unix://${XDG_RUNTIME_DIR:-/nonexistent}/docker.sock"
    "unix://${HOME:-/nonexistent}/.docker/run/docker.sock")
[ -z "${DOCKER_HOST:-}" ] || candidates=("$DOCKER_HOST")
for host in "${candidates[@]}"; do
    request "$host" "GET /_ping" /dev/null >/dev/null 2>&1 || continue
    if ! answer=$(request "$host" "POST /images/load" "$file"); then
        echo "image: the engine at $host refused $file: ${answer##*$'\r\n\r\n'}" >&2
        exit 1
    fi
    echo "loaded $file into the engine at $host"
    exit 0
done
echo "image: no engine answers at ${DOCKER_HOST:-the default sockets}; load the image later with \`docker load -i $file\`" >&2
exit 1
