#!/bin/bash
# install.sh install | uninstall, with WORKER (the binary), PREFIX, SYSCONFDIR and DESTDIR from the environment.
#
# Installs the worker, and what is made from it or goes with it: man page, completions, units, the user for the units, the
# environment file. It needs no network, and under DESTDIR no root. It starts nothing and makes no user: a package does that
# with its own scripts, anybody else with the two commands that are printed. An environment file that is there is never
# touched, and one that was changed survives an uninstall.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/*}
prefix=${PREFIX:?} sysconfdir=${SYSCONFDIR:?} destdir=${DESTDIR:-}
name=oz-agent-worker

# What is below a prefix, and how it is made; each line is a path and its mode.
bindir=$prefix/bin
docdir=$prefix/share/doc/$name
units=$prefix/lib/systemd/system
environment=$sysconfdir/$name/worker.env
files=(
    "$bindir/$name 755"
    "$prefix/share/man/man1/$name.1 644"
    "$prefix/share/bash-completion/completions/$name 644"
    "$prefix/share/zsh/site-functions/_$name 644"
    "$prefix/share/fish/vendor_completions.d/$name.fish 644"
    "$units/$name.service 644"
    "$units/$name@.service 644"
    "$prefix/lib/sysusers.d/$name.conf 644"
    "$docdir/worker.env 644"
    "$docdir/README.md 644"
    "$docdir/CHANGELOG.md 644"
    "$docdir/LICENSE 644"
)

# A unit takes neither blanks nor what sed or systemd has a meaning for.
for folder in "$prefix" "$sysconfdir"; do
    [[ $folder =~ ^/[A-Za-z0-9._/+-]+$ ]] || {
        echo "install: PREFIX and SYSCONFDIR must be absolute paths of letters, digits, and . _ / + -, not \"$folder\"" >&2
        exit 1
    }
done

say() { echo "install: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# A unit out of the template, which has the lines of both.
unit() {
    local keep=$1 drop=$2
    sed -e "/^#$drop /d" -e "s/^#$keep //" -e "1{/^# Made/d}" -e "s|@BINDIR@|$bindir|" \
        -e "s|@SYSCONFDIR@|$sysconfdir|" "$here/systemd/$name.service.in"
}

# The content of the file at that path.
content() {
    case $1 in
    "$bindir/"*) cat "$WORKER" ;;
    *.1) "$WORKER" --print man ;;
    */bash-completion/*) "$WORKER" --print bash ;;
    */zsh/*) "$WORKER" --print zsh ;;
    */fish/*) "$WORKER" --print fish ;;
    "$environment") cat "$here/systemd/worker.env" ;;
    */worker.env) "$WORKER" --print environment ;;
    *@.service) unit instance plain ;;
    *.service) unit plain instance ;;
    */sysusers.d/*) cat "$here/systemd/sysusers.conf" ;;
    */LICENSE | *.md) cat "$root/${1##*/}" ;;
    *) die "nobody knows what $1 is" ;;
    esac
}

# By a rename: a program that runs cannot be written to, and nobody sees half a file.
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

# What makes a service of it. systemd looks below these two prefixes only.
advise() {
    case $prefix in
    /usr | /usr/local)
        say "as a service: \`systemd-sysusers && systemctl daemon-reload\` makes its user and tells systemd;" \
            "fill in $environment, then \`systemctl enable --now $name\`"
        ;;
    *) say "systemd does not look below $prefix: for a service link its units to /etc/systemd/system, and make its user with" \
        "\`systemd-sysusers $prefix/lib/sysusers.d/$name.conf\`" ;;
    esac
}

install_all() {
    local file
    if ! [ -f "${WORKER:?}" ] || ! [ -x "$WORKER" ]; then
        die "there is no $WORKER: run \`make build\` first, or say WORKER=path"
    fi
    # A worker of another machine's kind cannot say what its pages are.
    "$WORKER" --version >/dev/null || die "$WORKER does not run here"
    umask 022
    for file in "${files[@]}"; do
        put "${file% *}" "${file##* }"
    done
    # It can hold the key, and those beside it, too.
    mkdir -p "$destdir$sysconfdir"
    [ -d "$destdir$sysconfdir/$name" ] || mkdir -m 750 "$destdir$sysconfdir/$name"
    [ -e "$destdir$environment" ] || put "$environment" 640
    say "installed $("$WORKER" --version) below $destdir$prefix; its settings are in $destdir$environment"
    [ -n "$destdir" ] || advise
}

# Its units are needed to stop it, and to take it out of what is started at boot.
is_in_use() {
    [ -z "$destdir" ] || return 1
    ! compgen -G "/etc/systemd/system/*.wants/$name*.service" >/dev/null || return 0
    [ -d /run/systemd/system ] &&
        systemctl list-units --plain --no-legend --state=active,activating,deactivating "$name.service" "$name@*.service" |
        grep -q .
}

uninstall_all() {
    local file path
    ! is_in_use || die "the worker runs or is enabled: \`systemctl disable --now $name\` first, and the same for each $name@ID"
    if [ -e "$destdir$environment" ]; then
        if cmp -s "$destdir$environment" "$here/systemd/worker.env"; then
            rm -f "$destdir$environment"
        else
            say "kept $destdir$environment, which has been changed"
        fi
    fi
    for file in "${files[@]}"; do
        path=$destdir${file% *}
        rm -f "$path"
        # Only what is empty now, and ours by its name.
        [[ $path != */$name/* ]] || rmdir "$(dirname "$path")" 2>/dev/null || true
    done
    rmdir "$destdir$sysconfdir/$name" 2>/dev/null || true
    say "removed from $destdir$prefix"
    [ -n "$destdir" ] || say "if there was a service: \`userdel $name\` removes its user, whose home is /var/lib/$name"
}

case "${1:-}" in
install) install_all ;;
uninstall) uninstall_all ;;
*) die "usage: install.sh install | uninstall" ;;
esac
