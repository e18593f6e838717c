"""node.json: what this board is, where its broker is, what is wired to it.

Keys: device_id, scope_level, scope, broker {host, port, server_name}, identity {cert, key, ca} (DER
file names on the flash), keepalive_s, ping_s, health_s (how often the board tells how it fares),
watchdog_ms (a loop that stands still so long restarts the board), update_keys (Ed25519 public keys
that may sign applications, hexadecimal), encoding (of measurements: json or cbor), outbox_flash_kb
(flash that messages may take during an outage, 0 for none), outbox_flush_s (how much of an outage a
power cut may cost, at most, where they may), sensors [...], actuators [...], wifi {ssid, key}.
"""

import json

from spinal.actuators import Actuators
from spinal.afferent import Policy
from spinal.wiring import declaration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ANY = None
_TEXT_LIMIT = 64
_KEY_DIGITS = 64
_HEX = "0123456789abcdef"
_INTERVAL = (0, 86400000)

# field: (type, is it required, default, rule); a rule is a pair of bounds or a tuple of choices.
_NODE: "dict[str, tuple]" = {
    "device_id": ("text", True, None, _ANY),
    "scope_level": ("choice", True, None, ("device", "room", "house", "user_session")),
    "scope": ("text", True, None, _ANY),
    "board": ("text", False, "virtual", _ANY),
    "broker": ("object", True, None, _ANY),
    "identity": ("object", False, None, _ANY),
    "wifi": ("object", False, None, _ANY),
    "keepalive_s": ("integer", False, 20, (1, 3600)),
    "ping_s": ("integer", False, 10, (1, 3600)),
    "encoding": ("choice", False, "json", ("json", "cbor")),
    "health_s": ("integer", False, 60, (1, 3600)),
    "watchdog_ms": ("integer", False, 20000, (1000, 600000)),
    "update_keys": ("list", False, [], (0, 4)),
    "outbox_flash_kb": ("integer", False, 0, (0, 1024)),
    "outbox_flush_s": ("integer", False, 60, (1, 3600)),
    "sensors": ("list", False, [], (0, 16)),
    "actuators": ("list", False, [], (0, 16)),
}
_BROKER = {
    "host": ("text", True, None, _ANY),
    "port": ("integer", True, None, (1, 65535)),
    "server_name": ("text", False, None, _ANY),
}
_IDENTITY = {
    "cert": ("text", True, None, _ANY),
    "key": ("text", True, None, _ANY),
    "ca": ("text", True, None, _ANY),
}
_WIFI = {"ssid": ("text", True, None, _ANY), "key": ("text", False, None, _ANY)}
_SENSOR = {
    "id": ("text", True, None, _ANY),
    "driver": ("choice", True, None, ("digital", "analog")),
    "pin": ("integer", True, None, (0, 255)),
    "pull": ("choice", False, None, ("up", "down")),
    "invert": ("boolean", False, False, _ANY),
    "scale": ("number", False, 1.0, _ANY),
    "offset": ("number", False, 0.0, _ANY),
    "unit": ("text", False, None, _ANY),
    "device_class": ("text", False, None, _ANY),
    "ttl_ms": ("integer", False, None, _INTERVAL),
    "period_ms": ("integer", False, 1000, (1, 86400000)),
}
# What the afferent policy reads; it checks these itself.
_SENSOR_POLICY = (
    "deadband",
    "min_interval_ms",
    "max_interval_ms",
    "debounce_ms",
    "median",
    "mean",
    "urgent",
)
_ACTUATOR = {
    "id": ("text", True, None, _ANY),
    "driver": ("choice", True, None, ("digital", "pwm")),
    "pin": ("integer", True, None, (0, 255)),
    "invert": ("boolean", False, False, _ANY),
    "frequency": ("integer", False, 1000, (1, 100000)),
    "boot": ("scalar", True, None, _ANY),
    "on_loss": ("loss", False, "hold", _ANY),
    "max_on_ms": ("integer", False, None, (1, 86400000)),
    "min": ("number", False, None, _ANY),
    "max": ("number", False, None, _ANY),
    "device_class": ("text", False, None, _ANY),
}


class NodeError(ValueError):
    """The node file breaks a rule: `file`, `field` and `rule` say which and where."""

    def __init__(self, file: str, field: str, rule: str) -> None:
        super().__init__("%s: %s: %s" % (file, field, rule))
        self.file = file
        self.field = field
        self.rule = rule


def load(file: str = "node.json") -> dict:
    """Read and check a node file; raises NodeError."""
    try:
        with open(file) as source:
            node = json.load(source)
    except OSError as error:
        raise NodeError(file, "the file", "must exist and be readable (%r)" % error) from error
    except ValueError as error:
        raise NodeError(file, "the file", "must be JSON (%s)" % error) from error
    return check(node, file)


def check(node: dict, file: str = "node.json") -> dict:
    """Return the node with defaults filled in; raises NodeError on the first broken rule."""
    node = _object(node, _NODE, (), file, "")
    node["broker"] = _object(node["broker"], _BROKER, (), file, "broker.")
    if node["identity"] is not None:
        node["identity"] = _object(node["identity"], _IDENTITY, (), file, "identity.")
        if node["broker"]["server_name"] is None:
            node["broker"]["server_name"] = node["broker"]["host"]
    if node["wifi"] is not None:
        node["wifi"] = _object(node["wifi"], _WIFI, (), file, "wifi.")
    node["sensors"] = _parts(node["sensors"], _SENSOR, _SENSOR_POLICY, file, "sensors")
    node["actuators"] = _parts(node["actuators"], _ACTUATOR, (), file, "actuators")
    for index, key in enumerate(node["update_keys"]):
        if not isinstance(key, str) or len(key) != _KEY_DIGITS or key.strip(_HEX):
            rule = "must be an Ed25519 public key, 64 hexadecimal digits"
            raise NodeError(file, "update_keys[%d]" % index, rule)
    _no_pin_twice(node, file)
    for index, sensor in enumerate(node["sensors"]):
        _checked_by(Policy, sensor, file, "sensors[%d]" % index)
    for index, actuator in enumerate(node["actuators"]):
        _check_boot(actuator, file, "actuators[%d].boot" % index)
        _check_range(actuator, file, "actuators[%d]" % index)
        declared = [declaration(actuator)]
        _checked_by(Actuators, declared, file, "actuators[%d]" % index)
    return node


def _parts(parts: list, fields: dict, passed: tuple, file: str, name: str) -> list:
    seen = set()
    checked = []
    for index, given in enumerate(parts):
        where = "%s[%d]" % (name, index)
        part = _object(given, fields, passed, file, where + ".")
        if part["id"] in seen:
            raise NodeError(file, where + ".id", "%r is used twice" % part["id"])
        seen.add(part["id"])
        checked.append(part)
    return checked


def _no_pin_twice(node: dict, file: str) -> None:
    pins: dict[int, str] = {}
    for name in ("sensors", "actuators"):
        for index, part in enumerate(node[name]):
            where = "%s[%d].pin" % (name, index)
            if part["pin"] in pins:
                other = pins[part["pin"]]
                raise NodeError(file, where, "pin %d is taken by %s" % (part["pin"], other))
            pins[part["pin"]] = where


def _checked_by(part: "Any", config: object, file: str, field: str) -> None:
    try:
        part(config)
    except ValueError as error:
        raise NodeError(file, field, str(error)) from error


def _check_boot(actuator: dict, file: str, field: str) -> None:
    boot = actuator["boot"]
    if actuator["driver"] == "digital":
        if boot not in (0, 1):
            raise NodeError(file, field, "must be 0 or 1")
        actuator["boot"] = bool(boot)
    elif not 0 <= boot <= 1:
        raise NodeError(file, field, "must be from 0 to 1")


def _check_range(actuator: dict, file: str, field: str) -> None:
    least, most = actuator["min"], actuator["max"]
    if actuator["driver"] == "digital":
        if least is not None or most is not None:
            raise NodeError(file, field, "a switch has no min and no max")
        return
    actuator["min"] = least = 0 if least is None else least
    actuator["max"] = most = 1 if most is None else most
    if not 0 <= least < most <= 1:
        raise NodeError(file, field, "min and max must be 0 <= min < max <= 1")


def _object(value: object, fields: dict, passed: tuple, file: str, prefix: str) -> dict:
    if not isinstance(value, dict):
        raise NodeError(file, prefix.rstrip(".") or "the file", "must be an object")
    for name in value:
        if name not in fields and name not in passed:
            known = ", ".join(sorted(list(fields) + list(passed)))
            raise NodeError(file, prefix + name, "is not known here; known: " + known)
    checked = {name: value[name] for name in passed if name in value}
    for name, (kind, required, default, rule) in fields.items():
        given = value.get(name)
        if given is None:
            if required:
                raise NodeError(file, prefix + name, "is missing")
            checked[name] = default
        else:
            problem = _problem(given, kind, rule)
            if problem:
                raise NodeError(file, prefix + name, "must be " + problem)
            checked[name] = given
    return checked


def _problem(value: "Any", kind: str, rule: "Any") -> str | None:
    """What `value` must be, or None when it is."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "choice":
        return None if value in rule else "one of " + ", ".join(rule)
    if kind == "integer":
        good = isinstance(value, int) and not isinstance(value, bool)
        return None if good and rule[0] <= value <= rule[1] else "an integer from %d to %d" % rule
    if kind == "list":
        good = isinstance(value, list) and rule[0] <= len(value) <= rule[1]
        return None if good else "a list of at most %d" % rule[1]
    checks = {
        "text": (
            isinstance(value, str) and 0 < len(value) <= _TEXT_LIMIT,
            "a text of 1 to 64 characters",
        ),
        "number": (number, "a number"),
        "scalar": (number or isinstance(value, bool), "a number or true or false"),
        "boolean": (isinstance(value, bool), "true or false"),
        "object": (isinstance(value, dict), "an object"),
        "loss": (
            value == "hold"
            or (isinstance(value, dict) and ("off_after_ms" in value or "value" in value)),
            '"hold", {"off_after_ms": n} or {"value": v}',
        ),
    }
    good, rule_text = checks[kind]
    return None if good else rule_text
