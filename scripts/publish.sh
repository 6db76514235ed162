#!/bin/sh
# publish.sh SCOPE [FLAG...]: publishes the library to JSR as @SCOPE/tsync. FLAGs are those of
# `deno publish`. The scope that deno.json has is only a name to work with; examples import "tsync",
# and README's, which are for who has the sources, "./src/mod.ts".
# DENO is how to start Deno, if it is not on PATH.
set -eu
cd "$(dirname "$0")/.."
scope=${1:-}
case $scope in
  '' | *[!a-z0-9-]*)
    echo "publish.sh: cannot publish under \"$scope\": name a scope of JSR, without its @" >&2
    exit 1
    ;;
esac
shift
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -R deno.json README.md CHANGELOG.md LICENSE docs src "$stage"
cd "$stage"
{
  echo deno.json
  echo README.md
  grep -rl 'from "tsync"' src
} | while read -r file; do
  sed "s|^  \"name\": \"@[^/]*/|  \"name\": \"@$scope/|; s|from \"tsync\"|from \"@$scope/tsync\"|
    s|from \"\./src/mod\.ts\"|from \"@$scope/tsync\"|" "$file" >new
  mv new "$file"
done
${DENO:-deno} publish "$@"
