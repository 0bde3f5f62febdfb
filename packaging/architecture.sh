#!/bin/bash
# architecture.sh BINARY
#
# Prints the architecture of a program by its names in rpm and in Debian, as `aarch64 arm64`.
set -euo pipefail

binary=${1:?usage: architecture.sh BINARY}
# The field e_machine of the ELF header.
case $(od -An -tx1 -j18 -N2 "$binary" | tr -d ' ') in
3e00) echo x86_64 amd64 ;;
b700) echo aarch64 arm64 ;;
*)
    echo "package: $binary is not a program for x86_64 or aarch64" >&2
    exit 1
    ;;
esac
