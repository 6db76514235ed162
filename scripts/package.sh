#!/bin/sh
# REPOSITORY=OWNER/NAME package.sh TARGET...: packs dist/tsync-TARGET as
# dist/release/tsync-VERSION-TARGET.tar.xz, the same bytes for the same program, beside the installer
# and units, and writes dist/release/SHA256SUMS of all that are there. Needs GNU tar.
# REPOSITORY is the one on GitHub that publishes them, and that they are to name.
set -eu
cd "$(dirname "$0")/.."
repository=${REPOSITORY:-}
if ! printf '%s\n' "$repository" | grep -Eqx '[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+'; then
  echo "package.sh: cannot name the repository: REPOSITORY is \"$repository\"; set it to OWNER/NAME" >&2
  exit 1
fi
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' deno.json)
release=dist/release
mkdir -p $release
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -R README.md LICENSE CHANGELOG.md man packaging scripts/completions scripts/install.sh "$stage"
grep -rl @REPOSITORY@ "$stage" | xargs sed -i "s|@REPOSITORY@|$repository|g"
for target in "$@"; do
  name=tsync-$version-$target
  mkdir "$stage/$name"
  cp "dist/tsync-$target" "$stage/$name/tsync"
  chmod 755 "$stage/$name/tsync"
  (cd "$stage" && cp -R README.md LICENSE CHANGELOG.md man packaging completions "$name")
  tar -C "$stage" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cJf \
    "$release/$name.tar.xz" "$name"
done
cp "$stage/install.sh" "$stage"/packaging/systemd/*.service "$stage"/packaging/launchd/*.plist $release
cd $release
rm -f SHA256SUMS
sums=$(sha256sum ./* | sed 's|  \./|  |')
printf '%s\n' "$sums" | tee SHA256SUMS
