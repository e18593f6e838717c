# .tools/stubs/<port>: what each port's modules offer, for mypy to read the firmware as that port would.
# shellcheck shell=bash disable=SC2154
#
# Not in .venv: they stand in for the standard library, and no other check may read them.

stubs_ports=(esp32 rp2)
stubs_version=1.29.0.post1
stubs_library_version=1.29.0.post2
stubs_hash_esp32=c0a72410b9924f51b520534de0dc7f1839ff8f108689aa1e935a0c2b9fcbd96b
stubs_hash_rp2=a26183e4ef7557469fd3387677a8e08cf1bc856a6cbe13acc773e57e94f0625c
stubs_hash_library=bdcd54d9896d8e1d455b3a99995d82a8399e1e2c9cb94eacabe278e5c2397783

stubs_why() { echo "type stubs of MicroPython $stubs_version for ${stubs_ports[*]} in .tools/stubs"; }

stubs_present() {
  local port
  for port in "${stubs_ports[@]}"; do
    [ -r "$tools/stubs/$port/machine.pyi" ] && [ -d "$tools/stubs/$port/stdlib" ] &&
      [ "$(cat "$tools/stubs/$port/.version" 2>/dev/null)" = "$stubs_version $stubs_library_version" ] || return 1
  done
}

stubs_install() {
  local port hash
  make_scratch
  for port in "${stubs_ports[@]}"; do
    hash=stubs_hash_$port
    {
      echo "micropython-$port-stubs==$stubs_version --hash=sha256:${!hash}"
      echo "micropython-stdlib-stubs==$stubs_library_version --hash=sha256:$stubs_hash_library"
    } >"$scratch/wanted"
    rm -rf "${tools:?}/stubs/$port"
    within 300 "pip install" .venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
      --retries 3 --timeout 30 --no-deps --no-compile --require-hashes --target "$tools/stubs/$port" \
      -r "$scratch/wanted" || fail "MicroPython's stubs could not be installed; check the network, then run tools/setup again"
    echo "$stubs_version $stubs_library_version" >"$tools/stubs/$port/.version"
  done
}
