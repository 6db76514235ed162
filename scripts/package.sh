#!/bin/sh
# REPOSITORY=OWNER/NAME package.sh TARGET...: packs dist/tsync-TARGET as
# dist/release/tsync-VERSION-TARGET.tar.xz and, for Linux, as a .deb (deb.sh), the same bytes for the
# same program and SOURCE_DATE_EPOCH; puts beside them the installer, the units and, if all targets
# are there, Homebrew's formula; and writes dist/release/SHA256SUMS of all. Needs GNU tools.
# REPOSITORY is the one on GitHub that publishes them, and that they are to name.
# QUICK=yes packs in seconds, not minutes, and a third larger: for tests.
set -eu
cd "$(dirname "$0")/.."
REPOSITORY=${REPOSITORY:-}
# Not with grep, which is content if one line of several is right.
case $REPOSITORY in
  *[!A-Za-z0-9_./-]* | */*/* | /* | */) named= ;;
  */*) named=yes ;;
  *) named= ;;
esac
if [ -z "$named" ]; then
  echo "package.sh: cannot name the repository: REPOSITORY is \"$REPOSITORY\"; set it to OWNER/NAME" >&2
  exit 1
fi
export REPOSITORY LC_ALL=C
preset=preset=9e,dict=64MiB
[ -z "${QUICK:-}" ] || preset=preset=0
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' deno.json)
release=dist/release
mkdir -p $release
# What another version left is not of this one.
find $release -type f \( -name tsync.rb -o -name 'tsync[-_][0-9]*' ! -name "tsync[-_]$version-*" \) \
  -exec rm {} +
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -R README.md LICENSE CHANGELOG.md man packaging scripts/completions scripts/install.sh "$stage"
grep -rl @REPOSITORY@ "$stage" | xargs sed -i "s|@REPOSITORY@|$REPOSITORY|g"
for target in "$@"; do
  name=tsync-$version-$target
  mkdir "$stage/$name"
  cp "dist/tsync-$target" "$stage/$name/tsync"
  chmod 755 "$stage/$name/tsync"
  scripts/copyright.sh "dist/tsync-$target" >"$stage/$name/copyright"
  (cd "$stage" && cp -R README.md LICENSE CHANGELOG.md man packaging completions "$name" &&
    rm -r "$name/packaging/debian" "$name/packaging/homebrew")
  # Of xz's filters for code, that for arm64 asks those who unpack for xz 5.4; the other asks nothing.
  case $target in x86_64-*) filter=--x86 ;; *) filter= ;; esac
  tar -C "$stage" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX -cf "$stage/$name.tar" "$name"
  xz -c $filter --lzma2="$preset" "$stage/$name.tar" >"$release/$name.tar.xz"
  case $target in
    *-linux-*)
      if command -v dpkg-deb >/dev/null; then
        scripts/deb.sh "$target" >/dev/null
      else
        echo "package.sh: no .deb is made for $target: dpkg-deb is missing" >&2
      fi
      ;;
  esac
done
cp "$stage/install.sh" "$stage"/packaging/systemd/*.service "$stage"/packaging/launchd/*.plist $release

# The formula names every archive of this version and its checksum.
formula=$stage/packaging/homebrew/tsync.rb.in
sed -i "s|@VERSION@|$version|g" "$formula"
sed -n 's/.*sha256 "@\(.*\)@"/\1/p' "$formula" | while read -r target; do
  archive=$release/tsync-$version-$target.tar.xz
  [ ! -f "$archive" ] || sed -i "s|@$target@|$(sha256sum "$archive" | cut -d ' ' -f 1)|" "$formula"
done
if grep -q 'sha256 "@' "$formula"; then
  echo 'package.sh: no formula is made: archives are missing' >&2
else
  cp "$formula" $release/tsync.rb
fi

cd $release
rm -f SHA256SUMS
sums=$(sha256sum ./* | sed 's|  \./|  |')
printf '%s\n' "$sums" | tee SHA256SUMS
