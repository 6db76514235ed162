#!/bin/sh
# package.sh TARGET...: packs dist/tsync-TARGET as dist/release/tsync-VERSION-TARGET.tar.xz, the
# same bytes for the same program, and writes dist/release/SHA256SUMS of all that are there. GNU tar.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' deno.json)
release=dist/release
mkdir -p $release
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
for target in "$@"; do
  name=tsync-$version-$target
  mkdir "$stage/$name"
  cp "dist/tsync-$target" "$stage/$name/tsync"
  chmod 755 "$stage/$name/tsync"
  cp -R README.md LICENSE CHANGELOG.md packaging scripts/completions "$stage/$name"
  tar -C "$stage" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cJf \
    "$release/$name.tar.xz" "$name"
done
cp scripts/install.sh packaging/systemd/*.service packaging/launchd/*.plist $release
cd $release
rm -f SHA256SUMS
sums=$(sha256sum ./* | sed 's|  \./|  |')
printf '%s\n' "$sums" | tee SHA256SUMS
