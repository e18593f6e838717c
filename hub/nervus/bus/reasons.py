"""What MQTT 5 reason codes mean for whoever has to mend it (OASIS MQTT 5.0, 2.4)."""

from typing import Final

from paho.mqtt.reasoncodes import ReasonCode

CUT_OFF: Final = "the broker closed the connection before it answered"
NO_SUBSCRIBERS: Final = 0x10
QUOTA_EXCEEDED: Final = 0x97
NOT_AUTHORIZED: Final = 0x87
PASSING: Final = frozenset({0x80, 0x83, 0x88, 0x89, QUOTA_EXCEEDED})
"""Codes that may be others in a moment: unspecified, implementation, unavailable, busy, quota."""

_TO_DO: Final = {
    0x81: "the broker cannot read us: is something else listening on that port?",
    0x82: "the broker cannot read us: is something else listening on that port?",
    0x84: "the broker does not speak MQTT 5: update it",
    0x85: "use_username_as_clientid must be true: let `nervus up` write mosquitto.conf anew",
    0x86: "issue the identity anew: nervus identity issue",
    0x87: "was it revoked? look at `nervus identity list`, then issue it anew",
    0x88: "the broker takes no more connections now: look at `nervus doctor`",
    0x89: "the broker is busy: look at `nervus doctor`",
    0x8A: "the broker has banned this identity: look at its log",
    0x8B: "the broker stops: `nervus status` tells whether it comes back",
    0x8D: "nothing was heard of us for too long: is this machine overloaded?",
    0x8E: "a second program uses this identity: end it, or issue it one of its own",
    0x93: "more unacknowledged messages than the broker takes: report this",
    0x95: "a message was larger than max_packet_size in mosquitto.conf: report this",
    0x97: "the broker's quota is used up: look at `nervus doctor`, and for a full disk",
    0x98: "the broker's administrator ended the connection: look at its log",
    0x9C: "the broker has moved: correct `brokers` in nervus.toml",
    0x9D: "the broker has moved: correct `brokers` in nervus.toml",
    0x9F: "connections come faster than the broker takes them: it is tried again, more slowly",
}


def to_do(code: int | None) -> str:
    """What to do about a reason code; empty when the code says nothing to act on."""
    return _TO_DO.get(code or 0, "")


def to_do_about(error: Exception) -> str:
    """What to do about a connection that could not be made, or ended; empty where nothing says."""
    if isinstance(error.__context__, ConnectionRefusedError):
        return "is the broker up? `nervus status` tells, `nervus up` starts it"
    if str(error) == CUT_OFF:
        return "was our certificate revoked, or has it expired? look at `nervus identity list`"
    # Of a CONNACK, SUBACK or DISCONNECT, if the broker gave one.
    rc = getattr(error, "rc", None)
    return to_do(rc.value) if isinstance(rc, ReasonCode) else ""
