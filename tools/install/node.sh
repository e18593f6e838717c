# tests/node/node_modules: mqtt.js, ajv and the readers of CBOR, Protobuf and AsyncAPI, with which the tests
# read the wire a second time, in JavaScript. Only for tests.
# shellcheck shell=bash disable=SC2154

node_home=tests/node

node_why() { echo "Node's packages in $node_home/node_modules, checked by hash: parts in a second language join in the tests"; }

node_present() {
  node_works && [ -d "$node_home/node_modules" ] && [ -r "$stamps/node" ] &&
    [ "$(node_key)" = "$(<"$stamps/node")" ]
}

# Debian 12 has Node 18; whatever newer one is first on PATH serves as well.
node_works() {
  command -v npm >/dev/null && timeout 10 node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null
}

# Unlike a virtual environment, node_modules does not know its path: a moved checkout keeps it.
node_key() { cat "$node_home/package.json" "$node_home/package-lock.json" 2>/dev/null | sha256sum; }

# The lock holds versions and hashes and no address, so the machine's own registry or mirror serves.
node_install() {
  rm -f "$stamps/node"
  if ! node_works; then
    ! command -v node >/dev/null || say "  found Node $(node --version); 18 or newer, with npm, is needed"
    apt_install nodejs npm
    node_works || fail "Nervus' tests need Node 18 or newer with npm; this system's packages have $(node --version). Put a newer one first on PATH"
  fi
  say "  packages of $node_home/package-lock.json"
  within 300 "npm ci" npm --prefix "$node_home" ci --ignore-scripts --no-audit --no-fund --no-update-notifier \
    --fetch-retries=3 --fetch-timeout=30000 ||
    fail "Node's locked packages could not be installed; check the network, then run tools/setup again"
  node_key >"$stamps/node"
}
