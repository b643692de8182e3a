#!/bin/bash
# A real systemd of our own, as process 1 of its own namespaces, on a machine that has another one or none.
#
#   box.sh start FOLDER...   boots it; the host's root is seen through an overlay, the folders are the host's own
#   box.sh run COMMAND...    runs a command in it, with a clean environment
#   box.sh stop              ends it and removes every trace
#
# What it writes is thrown away with it. It has no network, no device of the machine, and none of the host's services.
set -euo pipefail

name=${BOX_NAME:-lrpath}
place=/run/lrpath-box/$name

first() {
  local pid
  pid=$(cat "$place/pid" 2>/dev/null) || return 1
  [[ $(readlink "/proc/$pid/exe" 2>/dev/null) == */systemd?(-shutdown) ]] && echo "$pid"
}

inside() {
  local pid group
  pid=$(first) || { echo "box $name does not run" >&2; exit 1; }
  group=$(cat "$place/group")/run.scope
  mkdir -p "$group"
  (
    echo 0 >"$group/cgroup.procs"
    exec nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
      env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 "$@"
  )
}

# The second half of a start: in the new namespaces, on the way to become process 1.
become() {
  local root=$place/root node device major minor folder unit
  mount --make-rprivate /
  mount -t tmpfs -o size=3g,mode=755 box "$place/files"
  mkdir "$place"/files/{upper,work}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$place/files/upper,workdir=$place/files/work" "$root"
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  # A box must not turn the machine's own knobs.
  for node in sys sysrq-trigger irq bus; do
    [ -e "$root/proc/$node" ] || continue
    mount --bind "$root/proc/$node" "$root/proc/$node"
    mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/$node"
  done
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
  for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r node major minor <<<"$device"
    mknod -m 666 "$root/dev/$node" c "$major" "$minor"
  done
  mkdir "$root"/dev/{pts,shm,mqueue}
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
  mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
  mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
  for folder in $(cat "$place/folders"); do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
  done
  # None of the machine's units but the basic ones.
  mount -t tmpfs -o mode=755 tmpfs "$root/etc/systemd/system"
  ln -s /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
  for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
    systemd-journald-audit.socket systemd-modules-load.service systemd-binfmt.service systemd-sysctl.service \
    systemd-timesyncd.service systemd-logind.service getty.target console-getty.service systemd-firstboot.service \
    systemd-hwdb-update.service dev-hugepages.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount; do
    ln -s /dev/null "$root/etc/systemd/system/$unit"
  done
  : >"$root/etc/fstab"
  tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
  rm -rf "$root/var/log/journal"
  ip link set lo up
  cd "$root"
  mkdir -p mnt
  pivot_root . mnt
  umount -l /mnt
  mount --make-rshared /
  exec env -i container=lrpath-box PATH="$PATH" \
    setpriv --bounding-set=-sys_time,-sys_module,-syslog,-sys_rawio,-audit_control \
    /lib/systemd/systemd --system --show-status=0
}

start() {
  first >/dev/null && { echo "box $name runs already" >&2; exit 1; }
  stop
  mkdir -p "$place"/{files,root}
  echo "$@" >"$place/folders"
  local group
  group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  group=$group$(sed -n 's/^0:://p' /proc/self/cgroup | sed 's,/$,,')/lrpath-box-$name
  mkdir -p "$group"
  echo "$group" >"$place/group"
  (
    echo 0 >"$group/cgroup.procs"
    exec setsid unshare --mount --pid --uts --ipc --cgroup --net --fork --kill-child -- /bin/bash "$(readlink -f "$0")" become
  ) </dev/null >"$place/console" 2>&1 &
  local parent=$! tries pid
  for tries in $(seq 600); do
    if pid=$(pgrep -P "$parent") && echo "$pid" >"$place/pid" && first >/dev/null &&
      [[ $(inside systemctl is-system-running 2>/dev/null) =~ running|degraded ]]; then
      return
    fi
    kill -0 "$parent" 2>/dev/null || break
    sleep 0.1
  done
  cat "$place/console" >&2
  stop
  echo "box $name did not start" >&2
  exit 1
}

stop() {
  local pid group member tries
  group=$(cat "$place/group" 2>/dev/null) || group=
  if pid=$(first); then
    for member in $(cat "$group/run.scope/cgroup.procs" 2>/dev/null); do
      [ ! "/proc/$member/ns/pid" -ef "/proc/$pid/ns/pid" ] || kill -9 "$member" 2>/dev/null || true
    done
    kill -s RTMIN+4 "$pid"
    for tries in $(seq 100); do first >/dev/null || break; sleep 0.1; done
    first >/dev/null && kill -9 "$pid"
    for tries in $(seq 100); do [ -e "/proc/$pid" ] || break; sleep 0.05; done
  fi
  if [ -d "$group" ]; then
    for tries in $(seq 50); do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
  fi
  rm -rf --one-file-system "$place"
  rmdir /run/lrpath-box 2>/dev/null || true
}

case ${1:-} in
  start | stop) "$@" ;;
  run) shift; inside "$@" ;;
  become) become ;;
  *) sed -n '2,9p' "$0"; exit 2 ;;
esac
