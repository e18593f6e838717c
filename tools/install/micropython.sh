# .tools/micropython: the MicroPython unix port, on which the virtual boards run.
# shellcheck shell=bash disable=SC2154
#
# Taken from Debian trixie's packages and unpacked beside the system, on trixie too: one build for
# everybody, no root, and the system's own libc stays as it is.

micropython_suite=trixie
micropython_home=$tools/micropython

micropython_why() { echo "MicroPython $micropython_suite's unix port in .tools/micropython: the virtual boards run on it"; }

micropython_present() { [ -x "$micropython_home/micropython" ] && micropython_works "$micropython_home"; }

micropython_works() {
  timeout 5 "$1/micropython" -c 'import sys, tls; assert sys.implementation.version >= (1, 24)' 2>/dev/null
}

micropython_install() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "found no apt-get; build MicroPython 1.24 or newer (unix port) and link it as .tools/micropython/micropython"
  local architecture mirror
  for architecture in $(micropython_architectures); do
    for mirror in $(micropython_mirrors); do
      say "  $architecture build"
      if micropython_unpack "$architecture" "$mirror" && micropython_works "$micropython_home.new"; then
        rm -rf "$micropython_home"
        mv "$micropython_home.new" "$micropython_home"
        return
      fi
    done
  done
  fail "no MicroPython that runs here could be got from the system's package mirrors; check the network, then run tools/setup again"
}

# The i386 build has a board's 4-byte words and 31-bit small integers.
micropython_architectures() {
  local native
  native=$(dpkg --print-architecture)
  [ "$native" != amd64 ] || echo i386
  echo "$native"
}

# The mirrors of this release itself, not those of its updates or of its security fixes.
micropython_mirrors() {
  local release
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 2>/dev/null |
    awk -v release="$release" '($2 == release || $2 == "stable") && $3 == "main" && !seen[$1]++ { print $1 }'
}

# micropython_unpack ARCHITECTURE MIRROR: into $micropython_home.new, whole dependencies included.
micropython_unpack() {
  local architecture=$1 mirror=$2 home=$micropython_home.new keyring=
  make_scratch
  local apt=$scratch
  rm -rf "$home"
  mkdir -p "$home/root" "$apt/lists/partial" "$apt/cache/archives/partial"
  : >"$apt/status"
  [ ! -r /usr/share/keyrings/debian-archive-keyring.gpg ] ||
    keyring=" [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
  echo "deb$keyring $mirror $micropython_suite main" >"$apt/sources.list"
  # An empty package state makes apt bring the whole closure, libc included.
  local options=(
    "${apt_options[@]}"
    -o Dir::Etc::SourceList="$apt/sources.list"
    -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State="$apt"
    -o Dir::State::Lists="$apt/lists"
    -o Dir::State::status="$apt/status"
    -o Dir::Cache="$apt/cache"
    -o APT::Architecture="$architecture"
    -o APT::Architectures="$architecture"
    -o APT::Sandbox::User="$(id -un)"
    -o Debug::NoLocking=true
  )
  within 300 "apt-get update" apt-get "${options[@]}" update || return
  within 300 "apt-get install --download-only" \
    apt-get "${options[@]}" -y --no-install-recommends install --download-only micropython || return
  local package
  for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$home/root"; done
  micropython_wrap "$home"
}

# micropython_wrap HOME: the launcher finds its own tree, so that the checkout may be anywhere.
micropython_wrap() {
  local home=$1 loader libraries
  loader=$(cd "$home/root" && find usr/lib* -name 'ld-linux*.so*' | head -n 1)
  libraries=$(dirname "$(cd "$home/root" && find usr/lib -name 'libc.so.6' | head -n 1)")
  cat >"$home/micropython" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/root
exec "\$root/$loader" --argv0 micropython --library-path "\$root/$libraries" "\$root/usr/bin/micropython" "\$@"
WRAPPER
  chmod +x "$home/micropython"
  # Encodings, documents and translations are most of the size, and nothing reads them here.
  rm -rf "$home/root/usr/share" "$home/root/$libraries/gconv"
}
