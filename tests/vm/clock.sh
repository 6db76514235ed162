# shellcheck shell=bash disable=SC2154 # from run.sh
# Sourced by run.sh: how well a program keeps the guest's clock, which starts off by so much and is
# 50 ppm fast. RUN is PROGRAM:OFFSET[:kill], PROGRAM tsync or chrony, OFFSET in seconds; killed as
# soon as a tenth of the offset is gone, the program must not leave a clock that runs away.
#
# The guest takes its counter (the host's, see truth.c) for 50 ppm slower than it is: its clock is
# fast, and no frequency that the kernel reports shows it. Nothing else in the guest could tell it:
# it has neither HPET nor ACPI's timer.
runs=("$@")
[[ $# -gt 0 ]] || runs=({tsync,chrony}:{5,0.05,0.001} tsync:0.05:kill)

pids=()
stop_all() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  wait
  pids=()
}
trap stop_all EXIT

gcc -O2 -Wall -Wextra -static -o "$vm/truth" truth.c -lm
khz=$("$vm/truth" khz)
folders=()
for run in "${runs[@]}"; do
  IFS=: read -r program offset end <<<"$run"
  folder=$vm/results/${run//:/_}
  folders+=("$folder")
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$vm/truth" "$folder/truth"
  cp "$tsync" "$folder/tsync"
  cp clock_guest.sh "$folder/job.sh"
  "$tsync" serve --host 127.0.0.1 --port 0 --udp-port 0 --stratum 1 2>"$folder/server" &
  pids=($!)
  until [[ $(grep -c listening "$folder/server" 2>/dev/null) == 2 ]]; do
    kill -0 "${pids[0]}" || fail "no server: see $folder/server"
    sleep 0.1
  done
  port=$(sed -n 's/.*listening on tcp 127.0.0.1:\([0-9]*\).*/\1/p' "$folder/server")
  udp=$(sed -n 's/.*listening on udp 127.0.0.1:\([0-9]*\).*/\1/p' "$folder/server")
  printf '%s\n' "server 10.0.2.2 port $udp ${CHRONY:-iburst}" \
    'makestep 1 3' rtcsync >"$folder/chrony.conf"
  printf '%s\n' "program=$program" "offset=$offset" "end=${end:-stop}" "port=$port" \
    "minutes=$minutes" >"$folder/settings"
  truncate -s 1M "$folder/memory"
  "$folder/truth" host "$folder/memory" >"$folder/truth.tsv" 2>"$folder/counters" &
  pids+=($!)
  echo "$run" >&2
  boot "$folder" "job tsc=reliable tsc_early_khz=$((khz * 20000 / 20001)) pmtmr=0" \
    >"$folder/console" 2>&1 </dev/null &
  pids+=($!)
  wait $!
  kill -0 "${pids[1]}" || fail "$run: the truth is not known: see $folder/counters"
  stop_all
  [[ $(cat "$folder/status") == 0 ]] || fail "$run: see $folder/console and $folder/report"
done
for folder in "${folders[@]}"; do
  printf '\n%s\n' "$folder/report:"
  cat "$folder/report"
done
echo
npx -y deno@2.9.6 run -R table.ts "${folders[@]}"
