#!/usr/bin/env bash
# Shared by the commands in hack/: set-up steps that can be run again at any time.
# Sourced, not run. Needs bash with `set -euo pipefail`.

HERKOS_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export HERKOS_SOURCE
# Where the locks of the whole machine are.
HERKOS_LOCKS=/run
export DEBIAN_FRONTEND=noninteractive npm_config_loglevel=error

step() { printf '==> %s\n' "$*"; }

# note TEXT: one line below a step.
note() { printf '    %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# watched TITLE COMMAND...: runs a long command, its output into a log file, with a sign of life
# every ten seconds; shows the end of the log when it fails. What interrupts us ends it, too.
watched() {
  local title=$1 log pid began=$SECONDS status=0
  shift
  log=$(mktemp)
  step "$title"
  # A process group of its own, with all its children: a job in the background would not hear of Ctrl-C.
  set -m
  # Nor may what outlives it (a compiler's cache, say) keep the lock of the set-up.
  "$@" >>"$log" 2>&1 </dev/null 8>&- &
  pid=$!
  set +m
  # shellcheck disable=SC2064 # the values of now
  trap "stop_watched $pid '$log'" INT TERM HUP
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if (((SECONDS - began) % 10 == 9)); then
      note "$((SECONDS - began)) s: $(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c1-100)"
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM HUP
  if ((status != 0)); then
    tail -n 40 "$log" >&2
    rm -f "$log"
    die "$title failed with exit code $status"
  fi
  rm -f "$log"
  note "done in $((SECONDS - began)) s"
}

# stop_watched PID LOG: to its end, as what comes next may need what it holds.
stop_watched() {
  trap '' INT TERM HUP
  kill -TERM -- "-$1" 2>/dev/null || true
  wait "$1" || true
  rm -f "$2"
  die 'interrupted'
}

require_machine() {
  [[ $(id -u) == 0 ]] || die 'run this as root: it makes network namespaces, cgroups and mounts'
  [[ $(uname -m) == x86_64 ]] || die "this is $(uname -m); Herkos runs on x86_64 only so far"
  command -v apt-get >/dev/null || die 'apt-get is not here; this set-up knows Debian only'
  command -v node >/dev/null || die 'node is not here; install Node 20'
  [[ $(node -p 'process.versions.node.split(".")[0]') == 20 ]] || die "node is $(node --version); Herkos needs Node 20"
  command -v cargo >/dev/null || die 'cargo is not here; install Rust (stable)'
}

debian_packages() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$HERKOS_SOURCE/hack/debian-packages.txt"; }

missing_packages() {
  local name
  for name in $(debian_packages); do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
  done
}

# apt_get ARGUMENT...: a fresh machine's own first update, or another set-up, may have apt's locks for minutes.
apt_get() {
  local until=$((SECONDS + 600)) words status
  while :; do
    status=0
    words=$(LC_ALL=C apt-get "$@" 2>&1 | tee -a /dev/stderr) || status=$?
    if ((status == 0 || SECONDS >= until)) || [[ $words != *'Could not get lock'* ]]; then return "$status"; fi
    sleep 2
  done
}

setup_packages() {
  local missing
  missing=$(missing_packages)
  if [[ -z $missing ]]; then
    step 'Debian packages: all there'
    return
  fi
  watched 'Debian packages: refreshing the lists' apt_get update
  # shellcheck disable=SC2086 # names, one word each
  watched "Debian packages: installing $(wc -l <<<"$missing")" apt_get install -y --no-install-recommends $missing
}

setup_node() {
  cd "$HERKOS_SOURCE"
  local stamp=node_modules/.herkos-lock
  if [[ -f $stamp ]] && cmp -s package-lock.json "$stamp"; then
    step 'npm packages: all there'
  else
    watched 'npm packages: installing' npm ci
    cp package-lock.json "$stamp"
  fi
  watched 'TypeScript: generating and compiling' npm run --silent build
}

setup_guest() {
  cd "$HERKOS_SOURCE"
  watched 'Guest: agent, kernel and root image' guest/build
}

setup_host() {
  cd "$HERKOS_SOURCE/cmd/herkos-host"
  watched 'Host helper: compiling' cargo build --release --locked --target-dir target
}

setup_all() {
  require_machine
  # Two at once would remove each other's files.
  mkdir -p "$HERKOS_SOURCE/build"
  exec 8>"$HERKOS_SOURCE/build/.setup-lock"
  if ! flock -n 8; then
    step 'waiting for another set-up of this directory'
    flock 8
  fi
  setup_packages
  setup_node
  setup_host
  setup_guest
  exec 8>&-
}
