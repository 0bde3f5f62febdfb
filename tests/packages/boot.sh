#!/bin/bash
# boot.sh ROOT SHARED READY
#
# Boots systemd in the root file system ROOT, in its own namespaces (but this machine's network), and runs until it ends. The
# folder SHARED is mounted at /shared. Prints the process id of `unshare`, the parent of systemd. When systemd has booted it sends
# "READY=1" to the abstract socket READY.
#
# systemd gets its own cgroup and cannot change the machine: /proc/sys and /sys are read-only, and units that load modules, set
# kernel variables or mount kernel file systems are masked.
set -euo pipefail

if [ -z "${OZ_BOOT_INSIDE:-}" ]; then
    tree=/sys/fs/cgroup
    [ -e $tree/cgroup.procs ] || tree=$tree/unified
    cgroup=$tree/oz-boot-$$
    mkdir "$cgroup"
    (
        echo "$BASHPID" >"$cgroup/cgroup.procs"
        # The death of this script kills unshare, unshare kills init, and with init everything in the namespace ends.
        exec setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --cgroup --fork --kill-child \
            env OZ_BOOT_INSIDE=yes bash "$0" "$@"
    ) &
    inside=$!
    echo "$inside"
    # Kills init, not unshare: unshare ends once nothing is left in the namespaces.
    trap 'kill -KILL $(cat /proc/$inside/task/$inside/children)' TERM INT HUP
    while kill -0 $inside 2>/dev/null; do wait $inside || true; done
    find "$cgroup" -depth -type d -exec rmdir {} +
    exit 0
fi

root=$1 shared=$2 ready=$3
hostname oz-test
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -p "$root/dev/shm" "$root/dev/pts" "$root/shared" "$root/mnt"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$shared" "$root/shared"
for unit in systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cd "$root"
pivot_root . mnt
umount -l /mnt
# systemd in a container does not set this itself; without it, units do not see what systemd mounts for them.
mount --make-rshared /
exec env -i container=oz NOTIFY_SOCKET="$ready" PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
    --show-status=no --unit=basic.target </dev/null
