#!/usr/bin/env bash
# tsync in a virtual machine: Debian under QEMU, made from npm's and Debian's packages alone. Root.
#
#   tests/vm/run.sh clock [RUN...]   how well the guest's clock is kept, beside chronyd (clock.sh)
#   tests/vm/run.sh system [GROUP...]  release, units and --set under systemd (system.sh)
#   tests/vm/run.sh shell            a root shell in the guest; its host is 10.0.2.2
#
# TSYNC    the program to try (default: dist/tsync-x86_64-unknown-linux-gnu)
# MINUTES  for which each program keeps the clock (default: 10)
# CHRONY   options of chronyd's server (default: iburst)
# VM       where image and results are kept (default: /var/tmp/tsync-vm)
# ACCEL    QEMU's accelerator (default: tcg; kvm where it boots Debian's kernel)
#
# The machine's own clock is only read.
# shellcheck disable=SC2034 # clock.sh uses some of these
set -euo pipefail
cd "$(dirname "$0")"
tsync=$(realpath "${TSYNC:-../../dist/tsync-x86_64-unknown-linux-gnu}")
vm=${VM:-/var/tmp/tsync-vm}
minutes=${MINUTES:-10}
mkdir -p "$vm"

fail() {
  printf 'run.sh: %s\n' "$*" >&2
  exit 1
}

# Programs that making and starting the machine takes.
need() {
  local -A package=(
    [qemu-system-x86_64]='qemu-system-x86 seabios' [mmdebstrap]=mmdebstrap [mkfs.ext4]=e2fsprogs
    [gcc]='gcc libc6-dev'
  )
  local missing=
  for program in "${!package[@]}"; do
    command -v "$program" >/dev/null || missing+=" ${package[$program]}"
  done
  [[ -n $missing ]] || return 0
  apt-get update -qq
  # shellcheck disable=SC2086 # names of packages
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

# $vm/image, with $vm/vmlinuz and $vm/initrd.img beside it; made again when this function changes.
make_image() {
  local tree=$vm/tree recipe
  recipe=$(declare -f make_image)
  [[ $recipe != "$(cat "$vm/recipe" 2>/dev/null)" ]] || return 0
  echo "making the image: a few minutes, once" >&2
  rm -rf "$tree"
  # shellcheck disable=SC2016 # mmdebstrap gives its hooks the tree as $1
  mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-confold \
    --include=linux-image-amd64,initramfs-tools,systemd-sysv,dbus,udev,kmod,iproute2,procps \
    --include=apparmor,chrony,ca-certificates,curl,xz-utils,libcap2-bin \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/vm"' \
    --essential-hook='printf "%s\n" virtio_pci virtio_blk ext4 >"$1/etc/initramfs-tools/modules"' \
    bookworm "$tree"
  cp "$tree"/boot/vmlinuz-* "$vm/vmlinuz"
  cp "$tree"/boot/initrd.img-* "$vm/initrd.img"
  printf '%s\n' '/dev/vda / ext4 rw 0 0' \
    'host /host 9p trans=virtio,version=9p2000.L,msize=512000,x-systemd.automount 0 0' \
    >"$tree/etc/fstab"
  printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n' >"$tree/etc/systemd/network/eth0.network"
  echo guest >"$tree/etc/hostname"
  echo 127.0.0.1 localhost guest >"$tree/etc/hosts"
  mkdir "$tree/host" "$tree/etc/systemd/system/serial-getty@ttyS0.service.d"
  # The guest's job is /host/job.sh; without one there is a shell.
  cat >"$tree/etc/systemd/system/job.service" <<'UNIT'
[Unit]
ConditionKernelCommandLine=job
Wants=network-online.target
After=network-online.target
RequiresMountsFor=/host
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash /host/job.sh
ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS >/host/status'
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
UNIT
  printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %%I linux\n' \
    >"$tree/etc/systemd/system/serial-getty@ttyS0.service.d/shell.conf"
  # chronyd is started when it is to be tried.
  chroot "$tree" systemctl --quiet enable systemd-networkd job
  chroot "$tree" systemctl --quiet disable chrony e2scrub_reap.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
  rm -f "$vm/image"
  mkfs.ext4 -q -d "$tree" "$vm/image.new" 3G
  rm -rf "$tree"
  mv "$vm/image.new" "$vm/image"
  printf '%s\n' "$recipe" >"$vm/recipe"
}

# Boots the guest. FOLDER is its /host, FOLDER/memory the page that it shares with its host.
# Usage: boot FOLDER KERNEL_ARGUMENTS [QEMU_OPTIONS...]
boot() {
  local folder=$1 arguments=$2
  shift 2
  qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max,la57=off,svm=off -machine pc,hpet=off \
    -smp 1 -m 1024 -nodefaults -no-user-config -display none -rtc base=utc,clock=host \
    -kernel "$vm/vmlinuz" -initrd "$vm/initrd.img" \
    -append "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off $arguments" \
    -drive "file=$vm/image,format=raw,if=virtio,snapshot=on" \
    -nic user,model=virtio-net-pci \
    -virtfs "local,path=$folder,mount_tag=host,security_model=none" \
    -object "memory-backend-file,id=page,size=1M,share=on,mem-path=$folder/memory" \
    -device ivshmem-plain,memdev=page -serial stdio "$@"
}

case ${1:-} in
  clock)
    shift
    need
    make_image
    # shellcheck source-path=SCRIPTDIR source=clock.sh
    . ./clock.sh "$@"
    ;;
  system)
    shift
    need
    make_image
    # shellcheck source-path=SCRIPTDIR source=system.sh
    . ./system.sh "$@"
    ;;
  shell)
    need
    make_image
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    boot "$folder" ''
    ;;
  *) fail 'usage: run.sh clock [RUN...] | system [GROUP...] | shell' ;;
esac
