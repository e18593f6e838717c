# mosquitto and its two command line clients, from the system's packages.
# shellcheck shell=bash

brokers_why() { echo "mosquitto and mosquitto-clients by apt: the two brokers, and mosquitto_sub to look in"; }

brokers_present() {
  # Debian keeps the broker in /usr/sbin, which is not on everybody's PATH.
  local PATH=$PATH:/usr/sbin:/sbin
  command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null && command -v mosquitto_pub >/dev/null
}

# The package starts a broker of its own, now and at every boot. Nervus starts its brokers itself, so
# the service that this script brought is stopped and disabled; one that was there is left alone.
brokers_install() {
  local PATH=$PATH:/usr/sbin:/sbin
  if command -v mosquitto >/dev/null; then
    apt_install mosquitto-clients
    return
  fi
  is_root || say "  its own service is not needed; once installed: sudo systemctl disable --now mosquitto"
  if is_root && [ -d /run/systemd/system ]; then
    # Masked while it is installed, it does not even start; the mask would be gone at a reboot.
    systemctl --quiet mask --runtime mosquitto.service
    apt_install mosquitto mosquitto-clients
    systemctl --quiet unmask --runtime mosquitto.service
    systemctl --quiet disable --now mosquitto.service
  else
    apt_install mosquitto mosquitto-clients
    service mosquitto stop >/dev/null || say "  the package's own service was not running"
    update-rc.d mosquitto disable
  fi
}
