# .venv: Python ≥ 3.11 with the locked packages and Nervus itself, editable.
# shellcheck shell=bash disable=SC2154

python_why() { echo "the Python environment .venv: every package of $lock, checked by hash"; }

# The test lock contains the run lock, so its stamp serves both.
python_present() {
  [ -x .venv/bin/nervus ] && [ -r "$stamps/python" ] || return 1
  local wanted
  for wanted in "$lock" tools/locks/test.lock; do
    [ "$(python_key "$wanted")" != "$(<"$stamps/python")" ] || return 0
  done
  return 1
}

# A virtual environment knows its own path: a moved checkout needs a new one. Of pyproject.toml only
# what describes the package counts, which stands above the settings of the checkers.
python_key() { { echo "$root"; cat "$1"; sed '/^\[tool\.ruff\]/,$d' pyproject.toml; } | sha256sum; }

python_install() {
  rm -f "$stamps/python"
  if ! .venv/bin/python -c "$python_fits" "$root/.venv" 2>/dev/null; then
    rm -rf .venv
    python_find
    say "  virtual environment with $base_python"
    within 120 "python -m venv" "$base_python" -m venv .venv ||
      fail "$base_python could not make a virtual environment"
  fi
  local pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)
  say "  packages of $lock"
  within 900 "pip install" "${pip[@]}" install --quiet --retries 3 --timeout 30 \
    --prefer-binary --require-hashes -r "$lock" ||
    fail "the locked packages could not be installed; check the network, then run tools/setup again"
  say "  nervus itself, editable"
  within 120 "pip install nervus" "${pip[@]}" install --quiet --no-deps --no-index --no-build-isolation \
    --editable . || fail "nervus could not be installed from $root"
  python_key "$lock" >"$stamps/python"
}

python_fits='
import sys
assert sys.version_info >= (3, 11)
import ensurepip, ssl, sqlite3, venv
assert len(sys.argv) < 2 or sys.prefix == sys.argv[1]
'

# Sets base_python: the Python that is first on PATH when it is complete, else the system's.
python_find() {
  for base_python in "$(command -v python3 || true)" /usr/bin/python3; do
    if [ -x "$base_python" ] && "$base_python" -c "$python_fits" 2>/dev/null; then return; fi
  done
  say "  python3-venv by apt: the system's Python comes without virtual environments"
  apt_install python3 python3-venv
  /usr/bin/python3 -c "$python_fits" 2>/dev/null ||
    fail "Nervus needs Python 3.11 or newer; this system has $(/usr/bin/python3 --version). Put a newer python3 first on PATH"
}
