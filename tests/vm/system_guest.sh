#!/bin/bash
# In the guest: the checks of each of $groups, a line each in /host/report. Its clock may be set.
# shellcheck disable=SC2154 # from settings
# shellcheck disable=SC2086,SC2317 # units have no spaces; checks are called by their groups' names
set -u
exec 3>/host/report 4>/host/trace >&4 2>&4
# shellcheck source=/dev/null
. /host/settings
PATH=$PATH:/usr/local/bin:/host
export SYSTEMD_PAGER='' SYSTEMD_COLORS=0 NO_COLOR=1 LC_ALL=C
units=/etc/systemd/system
patience=180
failed=0
cursor=
BASH_XTRACEFD=4
set -x

# A check, by a regular expression. Usage: see WHAT PATTERN SEEN
see() {
  if [[ $3 =~ $2 ]]; then
    printf 'ok      %s\n' "$1" >&3
  else
    failed=1
    printf 'FAILED  %s: expected "%s", saw: %s\n' "$1" "$2" "$(tail -n 8 <<<"$3")" >&3
  fi
}

# Seconds that no clock's setting changes.
uptime() {
  cut --delimiter=. --fields=1 /proc/uptime
}

# The same of what a command prints, sooner or later. Usage: await WHAT PATTERN COMMAND...
await() {
  local what=$1 pattern=$2 seen='' end
  shift 2
  end=$(($(uptime) + patience))
  until
    seen=$("$@" 2>&1)
    [[ $seen =~ $pattern ]] || (($(uptime) >= end))
  do sleep 1; done
  see "$what" "$pattern" "$seen"
}

note() {
  printf '        %s\n' "$*" >&3
}

# What a command prints, and its exit status.
run() {
  local said status
  said=$(timeout 300 "$@" 2>&1 </dev/null)
  status=$?
  printf '%s\nexit %d\n' "$said" $status
}

as_user() {
  run runuser -l user -c "$*"
}

get() {
  systemctl show --value --property="$2" "$1"
}

# ActiveState, Result and ExecMainStatus
state() {
  echo "$(get "$1" ActiveState) $(get "$1" Result) $(get "$1" ExecMainStatus)"
}

# The same after how often it was started again.
restarts() {
  echo "$(get "$1" NRestarts) $(state "$1")"
}

# What a unit has said, and systemd of it, since the last mark.
journal() {
  journalctl --output=cat --unit="$1" --after-cursor="$cursor"
}

mark() {
  cursor=$(journalctl --lines=0 --show-cursor | sed -n 's/^-- cursor: //p')
}

# Lines to be added to a unit. Usage: adapt UNIT LINE...
adapt() {
  mkdir -p "$units/$1.service.d"
  printf '%s\n' '[Service]' "${@:2}" >"$units/$1.service.d/check.conf"
  systemctl daemon-reload
  mark
}

plain() {
  systemctl stop "$1"
  rm -rf "$units/$1.service.d"
  systemctl daemon-reload
  systemctl reset-failed "$1"
  mark
}

# Usage: is_within SECONDS [SERVER]
is_within() {
  local offset
  offset=$(tsync sync --json "${2:-$server}" | sed 's/.*"time":[^,]*,"offset":\([^,]*\),.*/\1/')
  awk "BEGIN { print ($offset < $1 && $offset > -$1) ? \"within $1 s\" : \"$offset\" }"
}

# Sets the clock by so many seconds, less the moment that this takes.
set_off() {
  date --set="@$(date +%s.%N | awk "{ printf \"%.6f\", \$1 + $1 }")"
}

installer="curl -fsSL $releases/latest/download/install.sh | TSYNC_RELEASES=$releases sh"

install_units() {
  local unit
  for unit in tsync-serve tsync-sync tsync-refclock; do
    curl -fsSLo "$units/$unit.service" "$releases/latest/download/$unit.service"
    sed -i "s/time\.example/$server/" "$units/$unit.service"
  done
  # What is not wanted is forgotten when it ends, with its exit status.
  systemctl enable tsync-serve tsync-sync
}

check_install() {
  see 'install.sh as a user' \
    'installed tsync [0-9.]+ as /home/user/.local/bin/tsync.*is not on PATH.*exit 0' \
    "$(as_user "$installer")"
  see 'the program runs' 'offset .*exit 0' "$(as_user ".local/bin/tsync sync $server")"
  see 'install.sh --uninstall' 'removed /home/user/.local/bin/tsync' \
    "$(as_user "$installer -s -- --uninstall --to .local/bin")"
  see 'install.sh as root' 'installed tsync [0-9.]+ as /usr/local/bin/tsync' "$(run sh -c "$installer")"
  see 'a user starts what root installed' 'offset .*exit 0' "$(as_user "tsync sync $server")"
  see 'a user may not replace that' 'cannot write to /usr/local/bin: .*sudo.*exit 1' \
    "$(as_user "$installer")"
  install_units
  see 'the units pass systemd-analyze verify' '^.exit 0' \
    "$(run systemd-analyze verify "$units"/tsync-{serve,sync,refclock}.service)"
  for unit in tsync-serve tsync-sync; do
    see "$unit can be enabled" 'exit 0' "$(run systemctl enable --now "$unit")"
    see "$unit is enabled and active" 'enabled active' \
      "$(systemctl is-enabled "$unit") $(systemctl is-active "$unit")"
    note "$(systemd-analyze security "$unit" | tail -n 1)"
  done
  see 'install.sh over running services' 'was there already.*exit 0' "$(run sh -c "$installer")"
  see 'they go on' $'^active\nactive$' "$(systemctl is-active tsync-serve tsync-sync)"
  see 'they start again' 'exit 0.*active.active' "$(run systemctl restart tsync-serve tsync-sync
    systemctl is-active tsync-serve tsync-sync)"
  systemctl stop tsync-serve tsync-sync
}

# Restarted by hand, reloaded, killed, stopped. Usage: check_life UNIT
check_life() {
  local unit=$1 before
  before=$(get "$unit" MainPID)
  see "$unit: reload is refused" 'not applicable' "$(run systemctl reload "$unit")"
  see "$unit: it goes on" "^active success.* $before\$" "$(state "$unit") $(get "$unit" MainPID)"
  systemctl kill --signal=KILL "$unit"
  await "$unit: killed, it is started again" '1 active success' restarts $unit
  systemctl restart "$unit"
  see "$unit: restart" '^active success' "$(state "$unit")"
  systemctl stop "$unit"
  see "$unit: stop" '^inactive success 0' "$(state "$unit")"
}

check_serve() {
  local unit=tsync-serve before with
  mark
  systemctl start $unit
  see "$unit: active once it listens" '^active success' "$(state $unit)"
  await "$unit: kernel timestamps" 'listening on tcp .*kernel timestamps' journal $unit
  see "$unit: answers" 'offset .*exit 0' "$(run tsync sync localhost)"
  see "$unit: files for --max-clients" 'files +1[0-9]{4}' \
    "$(grep 'open files' "/proc/$(get $unit MainPID)/limits")"
  before=$(get $unit MainPID)
  systemctl kill --signal=HUP $unit
  await "$unit: SIGHUP without TLS" 'SIGHUP ignored' journal $unit
  check_life $unit
  await "$unit: says what it did" 'stopped after [0-9]+ replies' journal $unit

  adapt $unit ExecStart= 'ExecStart=/usr/local/bin/tsync serve --udp'
  see "$unit: UDP port 123 takes a capability" 'exit 1' "$(run systemctl start $unit)"
  await "$unit: it says so" 'ports below 1024 need a privilege' journal $unit
  systemctl stop $unit
  adapt $unit ExecStart= 'ExecStart=/usr/local/bin/tsync serve --udp' \
    AmbientCapabilities=CAP_NET_BIND_SERVICE CapabilityBoundingSet=CAP_NET_BIND_SERVICE \
    PrivateUsers=no
  see "$unit: with the lines that the unit names" 'exit 0' "$(run systemctl start $unit)"
  await "$unit: UDP port 123" 'listening on udp .*:123 \(kernel timestamps' journal $unit
  see "$unit: tsync asks ntp://" 'offset .*exit 0' "$(run tsync sync ntp://127.0.0.1)"
  see "$unit: chronyd asks" 'System clock wrong by.*exit 0' \
    "$(run chronyd -Q -t 30 'server 127.0.0.1 iburst')"
  note "$(systemd-analyze security $unit | tail -n 1)"

  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
    -keyout /root/key.pem -out /root/cert.pem -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE
  with='--tls-cert %d/cert.pem --tls-key %d/key.pem'
  adapt $unit ExecStart= "ExecStart=/usr/local/bin/tsync serve $with" \
    'LoadCredential=cert.pem:/root/cert.pem' 'LoadCredential=key.pem:/root/key.pem' \
    "ExecReload=/bin/kill -HUP \$MAINPID"
  see "$unit: a certificate that root alone may read" 'exit 0' "$(run systemctl restart $unit)"
  see "$unit: tls://" 'offset .*exit 0' "$(run tsync sync tls://localhost --ca /root/cert.pem)"
  see "$unit: reload" 'exit 0' "$(run systemctl reload $unit)"
  await "$unit: the certificate is read again" 'certificate read again' journal $unit
  see "$unit: tls:// after that" 'offset .*exit 0' \
    "$(run tsync sync tls://localhost --ca /root/cert.pem)"
  plain $unit

  with='--quiet --collect --service-type=notify'
  systemd-run $with --unit=few --property=LimitNOFILE=1024:524288 tsync serve --port 10001
  see 'soft limit 1024: raised to what --max-clients takes' 'files +10128 +524288' \
    "$(grep 'open files' "/proc/$(get few MainPID)/limits")"
  systemctl stop few
  mark
  systemd-run $with --unit=few --property=LimitNOFILE=1024:4096 tsync serve --port 10001
  await 'hard limit 4096: it says so' 'limit on open files is 4096; raise it to 10128' journal few
  systemctl stop few
}

check_sync() {
  local unit=tsync-sync
  adapt $unit ExecStart= 'ExecStart=/usr/local/bin/tsync sync --watch --set --json 10.0.2.2:1'
  systemctl start --no-block $unit
  await "$unit: without a server it is not active" 'connection refused' journal $unit
  see "$unit: it is starting" '^activating' "$(state $unit)"
  systemctl stop $unit
  see "$unit: stopped before its first fix, it has not failed" '^inactive success 130' "$(state $unit)"
  adapt $unit TimeoutStartSec=10 ExecStart= \
    'ExecStart=/usr/local/bin/tsync sync --watch --set --json 10.0.2.2:1'
  see "$unit: without a fix in TimeoutStartSec=, it has failed" 'timeout.*exit 1' \
    "$(run systemctl start $unit)"
  await "$unit: and is started again" '[1-9] activating' restarts $unit
  plain $unit

  set_off -10800
  systemctl start chrony
  systemctl start $unit
  see "$unit: active after its first fix" '^active success' "$(state $unit)"
  see "$unit: chronyd is stopped" '^inactive' "$(state chrony)"
  await "$unit: the step is in the journal" 'stepped by \+1080[0-9] s' journal $unit
  see "$unit: so is that it has a fix" synchronised "$(journal $unit)"
  see "$unit: the clock is right" within "$(is_within 0.1)"
  await "$unit: the kernel is steered" 'PLL FREQHOLD' truth state
  see "$unit: and told that it is synchronised" 'maxerror [0-9]{1,6} us' \
    "$(truth state | grep -v UNSYNC)"
  see "$unit: timedatectl says so" yes "$(timedatectl show --value --property=NTPSynchronized)"
  systemctl start tsync-serve
  see "$unit: tsync serve says so" '"stratum":2' "$(tsync sync --json localhost)"
  systemctl stop tsync-serve
  note "$(truth state)"
  note "$(systemd-analyze security $unit | tail -n 1)"
  check_life $unit
  see "$unit: the kernel is told" UNSYNC "$(truth state)"
}

check_watch() {
  local unit=tsync-sync
  systemctl restart $unit
  mark
  tsync sync --watch --set "$server" >/host/second 2>&1 &
  await "$unit: a second tsync is noticed" 'another program steers' journal $unit
  await 'by the second, too' 'another program steers' cat /host/second
  kill $!
  wait $!

  ip route add blackhole 10.0.2.2
  ip route flush cache
  await "$unit: a lost server is in the journal" 'did not answer|unreachable|cannot' journal $unit
  ip route del blackhole 10.0.2.2
  await "$unit: so is that it is back" 'synchronised again' journal $unit

  mark
  set_off -2000
  await "$unit: 2000 s later on are refused" '20[0-9]{2} s is more than the 1000 s' journal $unit
  await "$unit: it ends with 1" 'activating exit-code 1' state $unit
  mark
  await "$unit: it is started again" '^1 active success' restarts $unit
  await "$unit: and steps" 'stepped by \+' journal $unit
  see "$unit: the clock is right again" within "$(is_within 0.1)"
  systemctl restart $unit
  systemctl kill --signal=HUP $unit
  await "$unit: SIGHUP starts it again" '1 active success' restarts $unit
  systemctl stop $unit
}

check_set() {
  set_off 5
  see '--set: a step' 'stepped by -[45].*exit 0' "$(run tsync sync --set "$server")"
  see 'the clock is right' within "$(is_within 0.1)"
  set_off 0.09
  see '--set: a slew' 'is slewed by .*ms.*exit 0' "$(run tsync sync --set "$server")"
  await 'it is over' 'within 0.005 s' is_within 0.005
  set_off 7200
  see '--step-threshold: a step by ntp://' 'stepped by -.*exit 0' \
    "$(run tsync sync --set --step-threshold 0.001 "$ntp")"
  see '--set --max-offset' 'exit 0' "$(run tsync sync --quiet --set --max-offset 1 "$server")"
  see '--set, as a user' '^tsync: cannot set the system clock: it takes a privilege.*exit 1' \
    "$(as_user "tsync sync --set $server")"
  see '--watch --set, as a user' '^tsync: cannot set the system clock: it takes a privilege.*exit 1' \
    "$(as_user "tsync sync --watch --set $server")"
  cp /usr/local/bin/tsync /usr/local/bin/tsync-set
  setcap cap_sys_time+ep /usr/local/bin/tsync-set
  set_off 5
  see 'with setcap, as a user: a step' 'stepped by -[45].*exit 0' \
    "$(as_user "tsync-set sync --set $server")"
  set_off 5
  see 'with setcap, as a user: --watch --set' 'stepped by -[45].*exit 124' \
    "$(as_user "timeout 20 tsync-set sync --watch --set $server")"
  setcap cap_net_bind_service+ep /usr/local/bin/tsync-set
  see 'with setcap, as a user: UDP port 123' 'udp .*:123.*exit 124' \
    "$(as_user "timeout 10 tsync-set serve --udp")"
}

check_refclock() {
  local unit=tsync-refclock socket=/run/chrony.tsync.sock line
  note "chronyd: $(grep chronyd /sys/kernel/security/apparmor/profiles 2>&1)"
  systemctl enable $unit
  mark
  line=$(timeout 20 tsync sync --watch --json --refclock $socket "$server" 2>&1 >/dev/null |
    sed -n 's/.*chrony.conf should say: //p;T;q')
  see 'the line for chrony.conf' "^refclock SOCK $socket" "$line"
  printf '%s\n' "$line" >/etc/chrony/conf.d/tsync.conf
  rm -f /etc/chrony/sources.d/* && sed -i '/^pool/d' /etc/chrony/chrony.conf
  set_off 0.4
  systemctl restart chrony
  await "$unit: started with chronyd" '^active success' state $unit
  await "$unit: chronyd follows it" '#\* TSYN' chronyc -n sources
  await "$unit: the clock becomes right" 'within 0.02 s' is_within 0.02
  note "$(systemd-analyze security $unit | tail -n 1)"
  note "$(journal $unit | grep '^tsync:')"
  systemctl kill --signal=KILL chrony
  await "$unit: chronyd killed, it ends" '^inactive success' state $unit
  systemctl start chrony
  await "$unit: and starts with it" '^active success' state $unit
  await "$unit: chronyd follows it again" '#\* TSYN' chronyc -n sources
  systemctl stop chrony
  await "$unit: stopped with chronyd" '^inactive success' state $unit
  systemctl start chrony
  await "$unit: active" '^active success' state $unit
  check_life $unit
  systemctl stop chrony
  systemctl disable $unit
  rm /etc/chrony/conf.d/tsync.conf
}

# All at once: WatchdogSec= is a minute.
check_watchdog() {
  local unit
  mark
  systemctl start tsync-serve tsync-sync
  for unit in tsync-serve tsync-sync; do systemctl kill --signal=STOP "$unit"; done
  for unit in tsync-serve tsync-sync; do
    await "$unit: stopped by SIGSTOP, systemd starts it again" '1 active success' \
      restarts $unit
    see "$unit: because it gave no sign of life" 'Watchdog timeout' \
      "$(journal "$unit")"
    systemctl stop "$unit"
  done
}

check_leap() {
  local unit=tsync-sync
  adapt $unit ExecStart= "ExecStart=/usr/local/bin/tsync sync --watch --set --json $leaping"
  systemctl start $unit
  await 'a leap second is announced to the kernel' 'state 1.* INS' truth state
  await 'it is inserted' 'state 4' truth state
  await 'and no longer announced' 'status PLL FREQHOLD NANO' truth state
  note "$(journal $unit)"
  see 'the clock is right' within "$(is_within 0.1 "$leaping")"
  see 'nothing was stepped but at first' '^1$' "$(journal $unit | grep -c stepped)"
  systemctl stop $unit
  see 'the kernel is told that nobody keeps its clock' UNSYNC "$(truth state)"
  plain $unit
}

check_deb() {
  local unit=tsync-serve deb before
  systemctl disable --now tsync-{serve,sync,refclock}
  rm -rf /usr/local/bin/tsync "$units"/tsync-*
  systemctl daemon-reload
  deb=$(curl -fsSL "$releases/latest/download/SHA256SUMS" | sed -n 's/.*  \(tsync_.*_amd64\.deb\)$/\1/p')
  curl -fsSLo /root/tsync.deb "$releases/latest/download/$deb"
  see "$deb: installed" 'exit 0' "$(run dpkg --install /root/tsync.deb)"
  see "$deb: nothing is enabled or started" 'disabled inactive' \
    "$(systemctl is-enabled $unit) $(systemctl is-active $unit)"
  see "$deb: its unit starts" 'exit 0' "$(run systemctl enable --now $unit)"
  see "$deb: the program" '^/usr/bin/tsync$' "$(readlink "/proc/$(get $unit MainPID)/exe")"
  before=$(get $unit MainPID)
  see "$deb: upgraded" 'exit 0' "$(run dpkg --install /root/tsync.deb)"
  see "$deb: its unit was started again" '^active success' "$(state $unit)"
  see "$deb: as another process" '^[1-9]' "$(get $unit MainPID | grep -vx "$before")"
  see "$deb: purged" 'exit 0' "$(run dpkg --purge tsync)"
  see "$deb: nothing of it is left" '^inactive$' "$(systemctl is-active $unit; find / -xdev -name 'tsync*' \
    -not -path '/proc/*' -not -path '/root/*' -not -path '/var/lib/systemd/*' -not -path '/usr/local/*')"
}

note "$(uname -r), $(systemctl --version | head -n 1)"
useradd --create-home user
if [[ " ${groups[*]} " != *' install '* ]]; then
  sh -c "$installer"
  install_units
fi
for group in "${groups[@]}"; do
  echo "$group" >&3
  "check_$group"
done
exit $failed
