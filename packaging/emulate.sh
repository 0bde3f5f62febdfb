#!/bin/bash
# emulate.sh PROGRAM ARGUMENTS...
#
# Runs a program, with qemu if it is for x86_64 or aarch64 and this machine is not. The process id stays, so signals reach the
# program.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
program=${1:?usage: emulate.sh PROGRAM ARGUMENTS...}
arch=$("$here/architecture.sh" "$program" 2>/dev/null) || exec "$@"
arch=${arch% *}
[ "$arch" != "$(uname -m)" ] || exec "$@"
emulator=$here/../target/tools/qemu-$arch-static
[ -x "$emulator" ] || emulator=$(command -v "qemu-$arch-static") || {
    echo "package: cannot run $program on $(uname -m): qemu-$arch-static is missing: install qemu-user-static" >&2
    exit 1
}
exec "$emulator" "$@"
