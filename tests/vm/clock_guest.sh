#!/bin/bash
# In the guest: set its clock off by $offset, have $program keep it for $minutes, stop it ($end),
# and record two minutes more. `truth mark` tells the host what happened when.
# shellcheck disable=SC2154 # from settings
set -u
exec >/host/report 2>&1
# shellcheck source=/dev/null
. /host/settings
PATH=$PATH:/host
cp /host/tsync /usr/local/bin/tsync
truth guest &
uname -r
cat /sys/devices/system/clocksource/clocksource0/current_clocksource

truth set "$offset"
truth state
if [[ $program == chrony ]]; then
  cp /host/chrony.conf /etc/chrony/ # AppArmor lets it read no other.
  command=(chronyd -d)
else
  command=(tsync sync --watch --set --json "10.0.2.2:$port")
fi
truth mark start
systemd-run --quiet --unit=keeper --property=StandardOutput=file:/host/output \
  --property=StandardError=journal "${command[@]}"
if [[ $end == kill ]]; then
  truth until "$(awk "BEGIN { print $offset * 0.9 }")"
  truth mark kill
  truth state
  systemctl kill --signal=KILL keeper
  sleep 1
  truth state
else
  sleep $((minutes * 60))
  truth mark kept
  truth state
  if [[ $program == tsync ]]; then
    # What others are told meanwhile.
    tsync serve --host 127.0.0.1 --port 10086 2>/host/serve &
    serve=$!
    until grep -q listening /host/serve; do sleep 0.1; done
    tsync sync --json 127.0.0.1:10086
    kill "$serve"
    wait "$serve"
  else
    chronyc -n tracking
    chronyc -n sourcestats
  fi
  timedatectl show --property=NTPSynchronized
  systemctl is-active keeper
  truth mark stop
  systemctl stop keeper
  truth state
fi
sleep 120
truth mark end
truth answer
truth state
systemctl show keeper --property=Result,ExecMainStatus
journalctl --unit=keeper --output=short-precise --no-pager >/host/journal
sleep 1
