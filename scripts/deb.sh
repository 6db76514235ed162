#!/bin/sh
# REPOSITORY=OWNER/NAME deb.sh TARGET...: packs dist/tsync-TARGET, of Linux, as
# dist/release/tsync_VERSION-1_ARCHITECTURE.deb, the same bytes for the same program and
# SOURCE_DATE_EPOCH (by default the time of the last commit). Needs dpkg-deb and GNU tools.
# QUICK=yes as in package.sh.
set -eu
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH LC_ALL=C
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' deno.json)
from=packaging/debian
if [ -z "${QUICK:-}" ]; then level=9; else level=0; fi
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
export REPOSITORY
mkdir -p dist/release

# put MODE FROM TO: a file of the package.
put() {
  install -D -m "$1" "$2" "$root/$3"
}

for target in "$@"; do
  program=dist/tsync-$target
  case $target in
    x86_64-unknown-linux-gnu) architecture=amd64 ;;
    aarch64-unknown-linux-gnu) architecture=arm64 ;;
    *)
      echo "deb.sh: cannot make a package for $target: only for Linux" >&2
      exit 1
      ;;
  esac
  root=$stage/$architecture
  put 755 "$program" usr/bin/tsync
  for unit in packaging/systemd/*.service; do
    put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"
  done
  sed -i 's|/usr/local/bin/tsync|/usr/bin/tsync|' "$root"/usr/lib/systemd/system/*
  put 644 scripts/completions/tsync.bash usr/share/bash-completion/completions/tsync
  put 644 scripts/completions/_tsync usr/share/zsh/vendor-completions/_tsync
  put 644 scripts/completions/tsync.fish usr/share/fish/vendor_completions.d/tsync.fish
  put 644 man/tsync.1 usr/share/man/man1/tsync.1
  scripts/copyright.sh "$program" >"$stage/copyright"
  put 644 "$stage/copyright" usr/share/doc/tsync/copyright
  put 644 CHANGELOG.md usr/share/doc/tsync/changelog
  put 644 $from/changelog usr/share/doc/tsync/changelog.Debian
  put 644 $from/lintian-overrides usr/share/lintian/overrides/tsync
  put 644 $from/control DEBIAN/control
  for script in postinst prerm postrm; do put 755 $from/$script DEBIAN/$script; done

  # The newest version of glibc that it asks for.
  glibc=$(grep -ao 'GLIBC_2\.[0-9]*' "$program" | sort -uV | sed -n 's/GLIBC_//; $p')
  size=$(du -k -s --apparent-size "$root/usr" | cut -f 1)
  date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")
  grep -rlI '@[A-Z]*@' "$root" | xargs sed -i "s|@REPOSITORY@|$REPOSITORY|; s|@OWNER@|${REPOSITORY%%/*}|g
    s|@VERSION@|$version|; s|@ARCHITECTURE@|$architecture|; s|@SIZE@|$size|; s|@GLIBC@|$glibc|
    s|@DATE@|$date|"
  gzip -9 -n "$root"/usr/share/man/man1/* "$root"/usr/share/doc/tsync/changelog*
  (cd "$root" && find usr -type f -exec md5sum {} + | sort -k 2) >"$root/DEBIAN/md5sums"
  # No time is later, and directories have one, too.
  find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zxz -z$level --build "$root" \
    "dist/release/tsync_$version-1_$architecture.deb"
done
