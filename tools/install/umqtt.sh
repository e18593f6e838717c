# .tools/umqtt: the MQTT client that boards take from the package index; virtual boards take the same.
# shellcheck shell=bash disable=SC2154

umqtt_version=1.3.4
umqtt_archive=b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f
umqtt_module=8555d2f654deb8eb0d724f79b0811a78cc94029d070f3d96bbd74288653d63a5
umqtt_file=$tools/umqtt/umqtt/simple.py

umqtt_why() { echo "umqtt.simple $umqtt_version in .tools/umqtt: the boards' MQTT client, checked by hash"; }

umqtt_present() {
  [ -r "$umqtt_file" ] && [ "$(sha256sum <"$umqtt_file")" = "$umqtt_module  -" ]
}

# The archive has no setup.py: pip checks its hash, unpacks it, and then fails to build it. What it
# unpacked is all we want, so that failure is expected, and the file's own hash decides.
umqtt_install() {
  local found
  make_scratch
  echo "micropython-umqtt.simple==$umqtt_version --hash=sha256:$umqtt_archive" >"$scratch/wanted"
  within 300 "pip download" env TMPDIR="$scratch" .venv/bin/python -m pip --disable-pip-version-check --no-input download \
    --retries 3 --timeout 30 --no-deps --no-binary :all: --no-clean --no-build-isolation \
    --require-hashes --dest "$scratch" -r "$scratch/wanted" 2>"$scratch/output" || true
  found=$(find "$scratch" -path '*/umqtt/simple.py' | head -n 1)
  if [ -z "$found" ]; then
    cat "$scratch/output" >&2
    fail "umqtt.simple $umqtt_version could not be downloaded; check the network, then run tools/setup again"
  fi
  mkdir -p "$(dirname "$umqtt_file")"
  cp "$found" "$umqtt_file"
}
