#!/bin/sh
# smoke.sh PROGRAM: does it start, serve, sync, and agree with itself about the time?
set -eu
program=$1
work=$(mktemp -d)
server=
end() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT

"$program" --version
"$program" serve --host 127.0.0.1 --port 0 --http 0 --log json 2>"$work/log" &
server=$!
tries=0
until grep -q '"http"' "$work/log"; do
  tries=$((tries + 1))
  if [ $tries -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
    cat "$work/log" >&2
    echo "smoke.sh: the server does not listen" >&2
    exit 1
  fi
  sleep 0.1
done
address=$(sed -n 's/.*"transport":"tcp","address":"\([^"]*\)".*/\1/p' "$work/log")
"$program" sync "$address"
"$program" sync "$address" --json >"$work/fix"
cat "$work/fix"
# Server and client share a clock: the true offset is 0, and the bound must cover it.
sed 's/.*"offset":\([^,]*\),"error_bound":\([^,]*\),.*/\1 \2/; q' "$work/fix" | awk '
  { offset = $1 < 0 ? -$1 : $1; if (!(offset <= $2 && $2 < 0.1)) { print "smoke.sh: wrong: " $0; exit 1 } }'
kill "$server"
wait "$server"
server=
echo "smoke.sh: $program is well"
