# What the parts of tools/setup share.
# shellcheck shell=bash

say() { printf 'setup: %s\n' "$*"; }

# fail MESSAGE [STATUS]: says what went wrong and what to do, and ends.
fail() {
  printf 'setup: %s\n' "$1" >&2
  exit "${2:-1}"
}

scratch= # a folder, gone when set-up ends
log=     # what the last command printed
running= # its process

make_scratch() {
  rm -rf "${scratch:-}"
  scratch=$(mktemp -d)
}

end_setup() {
  [ -z "$running" ] || kill "$running" 2>/dev/null || true
  wait
  rm -rf "${scratch:-}" "${log:-}"
}
trap end_setup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# within SECONDS LABEL COMMAND…: runs it with a deadline; on failure shows the end of its output.
# In the background, because bash waits for a command in the foreground before it heeds a Ctrl-C.
within() {
  local seconds=$1 label=$2 status=0
  shift 2
  [ -n "$log" ] || log=$(mktemp)
  timeout --kill-after=10 "$seconds" "$@" >"$log" 2>&1 9>&- </dev/null &
  running=$!
  wait "$running" || status=$?
  running=
  if [ "$status" -ne 0 ]; then
    tail -n 15 "$log" | sed 's/^/       | /' >&2
    [ "$status" -ne 124 ] || printf 'setup: %s did not end within %s s\n' "$label" "$seconds" >&2
  fi
  return "$status"
}

is_root() { [ "$(id -u)" -eq 0 ]; }

apt_options=(
  -o Acquire::Retries=3
  -o Acquire::http::Timeout=30
  -o Acquire::https::Timeout=30
  -o DPkg::Lock::Timeout=120
)

# apt_install PACKAGE…: installs from the system's own package sources, or says the exact command.
apt_install() {
  command -v apt-get >/dev/null ||
    fail "this needs $* and found no apt-get; install them in this system's way and run tools/setup again"
  is_root || fail "this needs root, once. Run:  sudo apt-get update && sudo apt-get install --no-install-recommends $*"
  local install=(apt-get "${apt_options[@]}" -y --no-install-recommends install "$@")
  export DEBIAN_FRONTEND=noninteractive
  # A bare image has no package lists, an old one has lists of packages that are gone.
  if apt_has_lists && within 600 "apt-get install $*" "${install[@]}"; then return; fi
  say "  apt-get update"
  within 300 "apt-get update" apt-get "${apt_options[@]}" update ||
    fail "apt-get update failed; check the network and /etc/apt/sources.list, then run tools/setup again"
  within 600 "apt-get install $*" "${install[@]}" ||
    fail "apt-get could not install $*; see the lines above, then run tools/setup again"
}

# Without release information on disk, apt-get names no index at all.
apt_has_lists() { [ -n "$(apt-get -qq indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null)" ]; }
