# shellcheck shell=bash disable=SC2154 # from run.sh
# Sourced by run.sh: what a release does on a machine with systemd. The host has the release and two
# servers, one a few seconds before a leap second; the checks are in system_guest.sh.
all=(install serve sync watch set refclock watchdog leap deb)
groups=("$@")
[[ $# -gt 0 ]] || groups=("${all[@]}")
for group in "${groups[@]}"; do
  [[ " ${all[*]} " == *" $group "* ]] || fail "there is no group $group: only ${all[*]}"
done
root=../..
folder=$vm/results/system
pids=()
trap '((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true' EXIT

rm -rf "$folder" "$vm/release"
mkdir -p "$folder" "$vm/release/dist"
cp -R "$root"/{deno.json,README.md,LICENSE,CHANGELOG.md,man,packaging,scripts} "$vm/release"
cp "$tsync" "$vm/release/dist/tsync-x86_64-unknown-linux-gnu"
REPOSITORY=owner/name QUICK=yes SOURCE_DATE_EPOCH=$(date +%s) sh "$vm/release/scripts/package.sh" \
  x86_64-unknown-linux-gnu >"$folder/packed"
gcc -O2 -static -o "$folder/truth" truth.c -lm
cp system_guest.sh "$folder/job.sh"

"$tsync" serve --host 127.0.0.1 --port 0 --udp-port 0 --stratum 1 --log json 2>"$folder/server" &
pids+=($!)
: >"$folder/host"
# It ends with this script, whose end it reads.
exec 9> >(
  cd "$root" || exit
  # shellcheck disable=SC2046 # nothing, or one flag
  exec npx -y deno@2.9.6 run --quiet $(npx -y deno@2.9.6 run -N scripts/std_source.ts </dev/null) -A \
    tests/vm/system_host.ts "$vm/release/dist/release" >"$folder/host"
)
pids+=($!)
until [[ $(grep -c listening "$folder/server") == 2 && $(wc -l <"$folder/host") == 2 ]]; do
  for pid in "${pids[@]}"; do kill -0 "$pid" || fail "no servers: see $folder"; done
  sleep 0.1
done
port() {
  sed -n "s/.*\"$1\",\"address\":\"127.0.0.1:\([0-9]*\)\".*/\1/p" "$folder/server"
}
printf '%s\n' "groups=(${groups[*]})" "server=10.0.2.2:$(port tcp)" \
  "ntp=ntp://10.0.2.2:$(port udp)" "$(<"$folder/host")" >"$folder/settings"
truncate -s 1M "$folder/memory"
: >"$folder/report"
boot "$folder" job >"$folder/console" 2>&1 </dev/null &
pids+=($!)
tail -f --pid=$! "$folder/report"
[[ $(cat "$folder/status") == 0 ]] || fail "see $folder/report, console and trace"
