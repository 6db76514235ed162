#!/bin/sh
# REPOSITORY=OWNER/NAME copyright.sh PROGRAM: prints what a compiled program contains, and under which
# licences: packaging/debian/copyright with the crates that the program's own messages name.
set -eu
crates=$(grep -aoE 'registry/src/[^/]+/[A-Za-z0-9_-]+-[0-9]+\.[0-9]+\.[0-9]+' "$1" |
  sed 's|.*/||' | sort -u | tr '\n' ' ' | fold -s -w 78 | sed 's/^/ /; s/ *$//')
while IFS= read -r line; do
  case $line in
    @CRATES@) printf '%s\n' "${crates:- none}" ;;
    *@REPOSITORY@) printf '%s%s\n' "${line%@REPOSITORY@}" "$REPOSITORY" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <"$(dirname "$0")/../packaging/debian/copyright"
