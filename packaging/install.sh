#!/bin/bash
# install.sh install | uninstall, with WORKER (the binary), PREFIX, SYSCONFDIR and DESTDIR from the environment.
#
# Installs the worker with its man page, completions, systemd units, sysusers.d file, environment file, dashboard and alert rules. Needs no network, and
# with DESTDIR no root. Creates no user and starts nothing: the scripts of packages do that, and without a package the script
# prints the commands. `install` never changes an existing environment file, and `uninstall` keeps one that was edited.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
prefix=${PREFIX:?is not set, as \`make install\` does}
sysconfdir=${SYSCONFDIR:?is not set, as \`make install\` does}
destdir=${DESTDIR:-}
name=oz-agent-worker

bindir=$prefix/bin
docdir=$prefix/share/doc/$name
units=$prefix/lib/systemd/system
environment=$sysconfdir/$name/worker.env
# Each line is a path and its mode. The environment file is handled separately.
files=(
    "$bindir/$name 755"
    "$prefix/share/man/man1/$name.1 644"
    "$prefix/share/bash-completion/completions/$name 644"
    "$prefix/share/zsh/site-functions/_$name 644"
    "$prefix/share/fish/vendor_completions.d/$name.fish 644"
    "$units/$name.service 644"
    "$units/$name@.service 644"
    "$prefix/lib/sysusers.d/$name.conf 644"
    "$docdir/monitoring/alerts.yml 644"
    "$docdir/monitoring/dashboard.json 644"
    "$docdir/worker.env 644"
    "$docdir/README.md 644"
    "$docdir/CHANGELOG.md 644"
    "$docdir/LICENSE 644"
)

# sed writes the paths into units, so they must not have blanks or characters that are special to sed or systemd.
for folder in "$prefix" "$sysconfdir"; do
    [[ $folder =~ ^/[A-Za-z0-9._/+-]+$ ]] || {
        echo "install: PREFIX and SYSCONFDIR must be absolute paths of letters, digits and . _ / + -, not \"$folder\"" >&2
        exit 1
    }
done

say() { echo "install: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Prints the unit that has the lines marked #$1, without those marked #$2.
unit() {
    local keep=$1 drop=$2
    sed -e "/^#$drop /d" -e "s/^#$keep //" -e "1{/^# Template/d}" -e "s|@BINDIR@|$bindir|" \
        -e "s|@SYSCONFDIR@|$sysconfdir|" "$here/systemd/$name.service.in"
}

# Prints the content of the file that is installed at path $1.
content() {
    case $1 in
    "$bindir/"*) cat "$WORKER" ;;
    *.1) "$here/emulate.sh" "$WORKER" --print man ;;
    */bash-completion/*) "$here/emulate.sh" "$WORKER" --print bash ;;
    */zsh/*) "$here/emulate.sh" "$WORKER" --print zsh ;;
    */fish/*) "$here/emulate.sh" "$WORKER" --print fish ;;
    */monitoring/*) cat "$here/monitoring/${1##*/}" ;;
    "$environment") cat "$here/systemd/worker.env" ;;
    */worker.env) "$here/emulate.sh" "$WORKER" --print environment ;;
    *@.service) unit instance plain ;;
    *.service) unit plain instance ;;
    */sysusers.d/*) cat "$here/systemd/sysusers.conf" ;;
    */LICENSE | *.md) cat "$root/${1##*/}" ;;
    *) die "cannot make $1: unknown file" ;;
    esac
}

# Installs path $1 with mode $2. Renames a temporary file, because a running program cannot be overwritten.
put() {
    local path=$destdir$1 mode=$2 made
    mkdir -p "$(dirname "$path")"
    made=$(mktemp "$(dirname "$path")/.oz-install.XXXXXX")
    content "$1" >"$made" || {
        rm -f "$made"
        die "cannot make $path"
    }
    chmod "$mode" "$made"
    mv -f "$made" "$path"
}

# Prints how to run it as a service. systemd reads units below these two prefixes only.
advise() {
    case $prefix in
    /usr | /usr/local)
        say "to run it as a service: \`systemd-sysusers && systemctl daemon-reload\`, set the API key in $environment," \
            "then \`systemctl enable --now $name\`"
        ;;
    *) say "systemd reads no units below $prefix; to run it as a service, link the units in $units into /etc/systemd/system" \
        "and create the user with \`systemd-sysusers $prefix/lib/sysusers.d/$name.conf\`" ;;
    esac
}

install_all() {
    local file
    if ! [ -f "${WORKER:?}" ] || ! [ -x "$WORKER" ]; then
        die "$WORKER is missing or not executable: run \`make build\` first, or set WORKER to the path of the binary"
    fi
    # The man page, the completions and the sample settings are printed by the binary.
    "$here/emulate.sh" "$WORKER" --version >/dev/null || die "$WORKER does not run on this machine, and only it can print its man page"
    umask 022
    for file in "${files[@]}"; do
        put "${file% *}" "${file##* }"
    done
    # Files in this folder can contain the API key.
    mkdir -p "$destdir$sysconfdir"
    [ -d "$destdir$sysconfdir/$name" ] || mkdir -m 750 "$destdir$sysconfdir/$name"
    [ -e "$destdir$environment" ] || put "$environment" 640
    say "installed $("$here/emulate.sh" "$WORKER" --version) in $destdir$prefix; the settings are in $destdir$environment"
    [ -n "$destdir" ] || advise
}

# Returns whether a unit is enabled or active; systemd needs its file to disable and stop it.
is_in_use() {
    [ -z "$destdir" ] || return 1
    ! compgen -G "/etc/systemd/system/*.wants/$name*.service" >/dev/null || return 0
    [ -d /run/systemd/system ] &&
        systemctl list-units --plain --no-legend --state=active,activating,deactivating "$name.service" "$name@*.service" |
        grep -q .
}

uninstall_all() {
    local file path
    ! is_in_use || die "the service is enabled or running: run \`systemctl disable --now $name\` first, also for each $name@ID"
    if [ -e "$destdir$environment" ]; then
        if cmp -s "$destdir$environment" "$here/systemd/worker.env"; then
            rm -f "$destdir$environment"
        else
            say "kept $destdir$environment, which was edited"
        fi
    fi
    for file in "${files[@]}"; do
        path=$destdir${file% *}
        rm -f "$path"
        # Only folders named after the worker, once they are empty.
        [[ $path != */$name/* ]] || rmdir "$(dirname "$path")" 2>/dev/null || true
    done
    rmdir "$destdir$sysconfdir/$name" 2>/dev/null || true
    say "removed $name from $destdir$prefix"
    [ -n "$destdir" ] || say "if it ran as a service, remove its user with \`userdel $name\` and its home, /var/lib/$name"
}

case "${1:-}" in
install) install_all ;;
uninstall) uninstall_all ;;
*) die "usage: install.sh install | uninstall" ;;
esac
