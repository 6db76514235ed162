#!/usr/bin/env bash
# tsync on arm64: from source, under Debian's arm64 kernels, in QEMU. Made from npm's and Debian's
# packages alone. Emulation is slow: the tests take an hour, the rest some minutes. Root.
#
#   tests/arm64/run.sh PAGES try                the program, by itself and with this machine's
#   tests/arm64/run.sh PAGES test [FILES...]    the tests (default: all)
#   tests/arm64/run.sh PAGES shell              a shell
#
# Takes 5 GB of memory.
#
# PAGES  4k or 16k: the kernel's pages
# ARM64  where Debian and Deno are kept (default: /var/tmp/tsync-arm64)
set -euo pipefail
cd "$(dirname "$0")/../.."
arm=${ARM64:-/var/tmp/tsync-arm64}
deno_version=2.9.6
pages=${1:-} job=${2:-}
if ! [[ $pages =~ ^(4|16)k$ && $job =~ ^(try|test|shell)$ ]]; then
  echo 'usage: run.sh 4k|16k try|test|shell [FILES...]' >&2
  exit 2
fi
shift 2
mkdir -p "$arm"

deno() {
  npx -y "deno@$deno_version" "$@"
}

need() {
  local missing=
  command -v qemu-system-aarch64 >/dev/null || missing+=' qemu-system-arm'
  command -v mmdebstrap >/dev/null || missing+=' mmdebstrap'
  command -v cpio >/dev/null || missing+=' cpio'
  [[ -n $missing ]] || return 0
  apt-get update -qq
  # shellcheck disable=SC2086 # names of packages
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

packages=busybox-static,libc-bin,ncurses-base,dash,bash,coreutils,findutils,sed,grep,tar,gzip
packages+=,xz-utils,curl,wget,util-linux,procps,iproute2,tmux,zsh,fish,shellcheck,mandoc
packages+=,gcc,libc6-dev,python3,chrony,ntpsec-ntpdig,faketime,tinyproxy
packages+=,linux-image-arm64,linux-image-arm64-16k

# $arm/tree: Debian's packages, unpacked but not installed, and Deno.
make_tree() {
  local made=$deno_version,$packages
  [[ ! -e $arm/tree/made || $(<"$arm/tree/made") != "$made" ]] || return 0
  rm -rf "$arm/new" "$arm/tree"
  mmdebstrap --quiet --architectures=arm64 --variant=extract \
    --include="$packages" trixie "$arm/new"
  npm pack --silent --pack-destination "$arm" "@deno/linux-arm64-glibc@$deno_version" >/dev/null
  tar -xzf "$arm/deno-linux-arm64-glibc-$deno_version.tgz" -C "$arm/new/usr/bin" \
    --strip-components=1 package/deno
  printf '%s\n' "$made" >"$arm/new/made"
  mv "$arm/new" "$arm/tree"
}

# The file system of the machine, which all fits into memory: what is needed of the tree, this
# repository, and npm's packages as Deno keeps them.
make_initramfs() {
  local root=$arm/root kernel=$1
  rm -rf "$root"
  mkdir -p "$root"/{proc,sys,dev,tmp,root,etc,var,run,tsync,cache}
  cp -al "$arm/tree/usr" "$root/"
  for folder in bin sbin lib; do ln -s "usr/$folder" "$root/$folder"; done
  rm -rf "$root"/usr/lib/modules "$root"/usr/share/{doc,locale,man,info}
  mkdir "$root/usr/lib/modules"
  local module
  while IFS= read -r module; do
    xz -dc "$module" >"$root/usr/lib/modules/$(basename "${module%.xz}")"
  done < <(find "$arm/tree/usr/lib/modules/$kernel" \
    -name 'failover.ko*' -o -name 'net_failover.ko*' -o -name 'virtio_net.ko*' \
    -o -name 'tun.ko*' -o -name 'veth.ko*')
  git archive HEAD | tar -x -C "$root/tsync"
  DENO_DIR=$arm/cache deno cache -q --import-map=scripts/std_npm.json main.ts tests/*.ts
  cp -a "$arm/cache/npm" "$root/cache/"
  printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
  printf '127.0.0.1 localhost guest\n::1 localhost\n' >"$root/etc/hosts"
  cp tests/arm64/init.sh "$root/init"
  (cd "$root" && find . | cpio --quiet -o -H newc) >"$arm/initramfs"
}

need
make_tree
kernel=$(basename "$arm"/tree/boot/vmlinuz-*"$([[ $pages == 16k ]] && echo -16k || echo arm64)")
kernel=${kernel#vmlinuz-}
make_initramfs "$kernel"
forward=
if [[ $job == try ]]; then
  # A server here, which the guest asks at 10.0.2.2; and the guest's is asked from here.
  set -m # It ends with all that npx starts.
  deno run --import-map=scripts/std_npm.json -A main.ts \
    serve --host 127.0.0.1 --port 10185 --udp-port 10186 2>"$arm/server" &
  server=$!
  trap 'kill -- "-$server"' EXIT
  set +m
  forward=,hostfwd=tcp:127.0.0.1:10187-:10085,hostfwd=udp:127.0.0.1:10188-:10123
fi
# The processor of AWS's Graviton2.
qemu-system-aarch64 -machine virt -cpu neoverse-n1 -accel tcg,thread=multi -smp 2 -m 5120 \
  -nodefaults -nographic -serial stdio -no-reboot \
  -netdev "user,id=net$forward" \
  -device virtio-net-pci,netdev=net,romfile= \
  -kernel "$arm/tree/boot/vmlinuz-$kernel" -initrd "$arm/initramfs" \
  -append "console=ttyAMA0 quiet panic=-1 job=$job files=$(IFS=,; echo "$*")" |
  tee "$arm/console-$pages-$job" | while IFS= read -r line; do
    line=${line%$'\r'}
    printf '%s\n' "$line"
    # The guest's server is up: ask it.
    if [[ $line == 'ask me' ]]; then
      for ask in 127.0.0.1:10187 ntp://127.0.0.1:10188; do
        deno run --import-map=scripts/std_npm.json -A main.ts sync "$ask" </dev/null || true
      done
    fi
  done
grep -q '^tsync-status 0' "$arm/console-$pages-$job"
