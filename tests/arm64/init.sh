#!/bin/busybox sh
# shellcheck shell=dash disable=SC2013,SC2046,SC2086 # words are what is wanted
# What the emulated machine does: see run.sh.
/bin/busybox --install -s /bin 2>/dev/null # Debian's own programs stay.
ln -sf dash /bin/sh # That of Busybox prefers its own programs.
ln -sf gcc /bin/cc
hostname guest
export PATH=/bin:/sbin HOME=/root LANG=C.UTF-8 DENO_DIR=/cache NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
export TSYNC_TEST_SLOWNESS=20
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts none /dev/pts
mount -t tmpfs none /tmp
mount -t tmpfs none /dev/shm
ln -sf /proc/self/fd /dev/fd
ip link set lo up
for module in failover net_failover virtio_net tun veth; do insmod "/lib/modules/$module.ko"; done
ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0
ulimit -n 65536
for word in $(cat /proc/cmdline); do
  case $word in job=*) job=${word#job=} ;; files=*) files=${word#files=} ;; esac
done
uname -rm
cd /tsync || exit
std=--import-map=scripts/std_npm.json
tsync() { deno run --no-check --cached-only --quiet $std -A main.ts "$@"; }

try() {
  tsync serve --host 0.0.0.0 --udp-port 10123 2>/tmp/serve &
  tls=tests/fixtures/tls
  tsync serve --host 127.0.0.1 --port 10443 --tls-cert $tls/server.pem --tls-key $tls/server.key \
    2>/tmp/tls &
  until grep -q udp /tmp/serve && grep -q listening /tmp/tls; do sleep 1; done
  cat /tmp/serve /tmp/tls
  for stamps in kernel user; do
    for server in 127.0.0.1 ntp://127.0.0.1:10123 10.0.2.2:10185 ntp://10.0.2.2:10186; do
      tsync sync --timeout 60 --timestamps $stamps $server || return 1
    done
  done
  tsync sync --timeout 60 --ca $tls/authority.pem tls://localhost:10443 || return 1
  timeout -s INT 90 \
    deno run --no-check --cached-only --quiet $std -A main.ts sync --watch 127.0.0.1 || return 1
  echo 'ask me'
  sleep 60
}

# One file at a time: each ends with what failed in it.
tests() {
  failed=
  for file in $(echo "${files:-$(echo tests/*_test.ts)}" | tr , ' '); do
    timeout 3600 deno test --no-check --cached-only $std -A "$file" || failed="$failed $file"
  done
  [ -z "$failed" ] && return
  echo "failed:$failed"
  return 1
}

case $job in
  try) try ;;
  test) tests ;;
  shell) setsid cttyhack sh ;;
esac
echo "tsync-status $?"
poweroff -f
