#!/bin/sh
# publish.sh SCOPE [FLAG...]: publishes the library to JSR as @SCOPE/tsync. FLAGs are those of
# `deno publish`. The scope that deno.json has is only a name to work with; examples import "tsync".
set -eu
cd "$(dirname "$0")/.."
scope=$1
shift
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -R deno.json README.md CHANGELOG.md LICENSE docs src "$stage"
cd "$stage"
sed -i "s|^  \"name\": \"@[^/]*/|  \"name\": \"@$scope/|" deno.json
grep -rl 'from "tsync"' src | xargs sed -i "s|from \"tsync\"|from \"@$scope/tsync\"|"
# DENO: how to start Deno, if it is not on PATH.
${DENO:-deno} publish "$@"
