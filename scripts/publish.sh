#!/bin/sh
# publish.sh SCOPE [FLAG...]: publishes the library to JSR as @SCOPE/tsync. FLAGs are those of
# `deno publish`. The scope that deno.json has is only a name to work with; examples import "tsync".
# DENO is how to start Deno, if it is not on PATH.
set -eu
cd "$(dirname "$0")/.."
scope=$1
shift
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -R deno.json README.md CHANGELOG.md LICENSE docs src "$stage"
cd "$stage"
{
  echo deno.json
  grep -rl 'from "tsync"' src
} | while read -r file; do
  sed "s|^  \"name\": \"@[^/]*/|  \"name\": \"@$scope/|; s|from \"tsync\"|from \"@$scope/tsync\"|" \
    "$file" >new
  mv new "$file"
done
${DENO:-deno} publish "$@"
