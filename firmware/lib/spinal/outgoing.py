"""What this board says: envelope, topic, priority and lifetime of each message it publishes."""

import gc

from spinal import topics
from spinal.envelope import Envelope
from spinal.outbox import NO_SEQ, Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TTL_MS = {
    "AfferentSignal": 10_000,
    "ChunkRequest": 10_000,
    "CrashReport": 86_400_000,
    "DeviceHealth": 180_000,
    "DeviceLog": 60_000,
    "EfferentReport": 3_600_000,
    "ReflexFire": 86_400_000,
    "ReflexReport": 60_000,
    "Ping": 10_000,
    "RejectEvent": 60_000,
    "UpdateReport": 86_400_000,
}
"""Lifetimes of events, as in schemas/topics.json."""

_AT_LEAST_ONCE = {"ChunkRequest": "normal", "CrashReport": "critical", "UpdateReport": "control"}


class Outgoing:
    """Builds messages and puts them into the outbox.

    A message that the outbox sheds for another one is counted there (`Outbox.take_drops`).
    """

    def __init__(self, node: dict, envelope: Envelope, outbox: Outbox) -> None:
        self._device_id = node["device_id"]
        self._scope = (node["scope_level"], node["scope"])
        self._envelope = envelope
        self._outbox = outbox
        self._afferent_topics = {
            sensor["id"]: topics.afferent(*self._scope, sensor["id"], self._device_id)
            for sensor in node["sensors"]
        }

    def afferent(self, sensor_type: str, value: object, ticks_ms: int, **options: object) -> None:
        """A measurement. Options: unit, ttl_ms, critical."""
        topic = self._afferent_topics.get(sensor_type)
        if topic is None:
            topic = topics.afferent(*self._scope, sensor_type, self._device_id)
        critical = options.get("critical", False)
        priority = "critical" if critical else None
        ttl_ms = options.get("ttl_ms") or TTL_MS["AfferentSignal"]
        data = self._with_room(
            self._envelope.afferent,
            (sensor_type, value, options.get("unit"), ticks_ms, ttl_ms, priority),
        )
        self._put(topic, data, 1 if critical else 0, priority or "normal")

    def efferent_report(self, action_id: str, actuator: str, payload: dict, ticks_ms: int) -> None:
        """What became of a command."""
        topic = topics.efferent_report(*self._scope, actuator, self._device_id, action_id)
        self._event("EfferentReport", topic, payload, ticks_ms, "control", action_id)

    def reflex_fire(self, action_id: str, reflex_id: str, payload: dict, ticks_ms: int) -> None:
        """A reflex fired."""
        topic = topics.reflex_fire(self._device_id, reflex_id, action_id)
        self._event("ReflexFire", topic, payload, ticks_ms, "critical", action_id)

    def reflex_report(self, action_id: str, reflex_id: str, payload: dict, ticks_ms: int) -> None:
        """The answer to a configuration or a trigger."""
        topic = topics.reflex_report(self._device_id, reflex_id, action_id)
        self._event("ReflexReport", topic, payload, ticks_ms, "control", action_id)

    def about_board(self, contract: str, payload: dict, ticks_ms: int) -> None:
        """ChunkRequest, CrashReport, DeviceHealth, DeviceLog or UpdateReport."""
        priority = _AT_LEAST_ONCE.get(contract)
        fields = (contract, payload, ticks_ms, TTL_MS[contract])
        data = self._with_room(self._envelope.build, fields)
        topic = topics.about(self._device_id, contract)
        self._put(topic, data, 1 if priority else 0, priority or "background")

    def ping(self, payload: dict, ticks_ms: int) -> None:
        """The question for the time."""
        topic = topics.about(self._device_id, "Ping")
        data = self._with_room(self._envelope.build, ("Ping", payload, ticks_ms, TTL_MS["Ping"]))
        self._put(topic, data, 0, "control")

    def reject(self, payload: dict, ticks_ms: int) -> None:
        """Something was refused."""
        topic = topics.reject("device", self._device_id)
        fields = ("RejectEvent", payload, ticks_ms, TTL_MS["RejectEvent"])
        data = self._with_room(self._envelope.build, fields)
        self._put(topic, data, 0, "background")

    def status(self, status: str, session: str, ticks_ms: int) -> None:
        """Reachability (retained)."""
        payload = {"status": status, "session": session}
        self._state("DeviceStatus", topics.device_status(self._device_id), payload, ticks_ms)

    def info(self, payload: dict, ticks_ms: int) -> None:
        """The birth (retained)."""
        self._state("DeviceInfo", topics.device_info(self._device_id), payload, ticks_ms)

    def reflex_state(self, reflex_id: str, payload: dict | None, ticks_ms: int) -> None:
        """A reflex as this board keeps it (retained); None: it keeps it no more."""
        topic = topics.reflex_state(self._device_id, reflex_id)
        if payload is None:
            self._outbox.put(topic, b"", 1, True, "control", NO_SEQ)  # noqa: FBT003 - its signature
        else:
            self._state("ReflexState", topic, payload, ticks_ms)

    def will(self, session: str, ticks_ms: int) -> tuple[str, bytes]:
        """The last will: topic and message."""
        payload = {"status": "offline", "session": session}
        data = self._envelope.build("DeviceStatus", payload, ticks_ms)
        # It may never be published: it shares the number of the message that follows, so that a
        # reader sees no gap.
        self._envelope.last_seq -= 1
        return topics.device_status(self._device_id), data

    def _event(
        self,
        contract: str,
        topic: str,
        payload: dict,
        ticks_ms: int,
        priority: str,
        action_id: str,
    ) -> None:
        fields = (contract, payload, ticks_ms, TTL_MS[contract], action_id)
        data = self._with_room(self._envelope.build, fields)
        self._put(topic, data, 1, priority)

    def _state(self, contract: str, topic: str, payload: dict, ticks_ms: int) -> None:
        data = self._with_room(self._envelope.build, (contract, payload, ticks_ms))
        self._put(topic, data, 1, "control", retain=True)

    def _with_room(self, call: "Any", arguments: tuple) -> "Any":
        """Do what needs heap: what waits gives way to what happens now, half of it at a time.

        A heap of pieces may have room and no block that is large enough; what waits stands next to
        one another, so shedding makes one. A message that cannot be built burns no number.
        """
        while True:
            try:
                return call(*arguments)
            except MemoryError:
                if not self._outbox.shrink():
                    raise
                gc.collect()

    def _put(
        self, topic: str, data: bytes, qos: int, priority: str, *, retain: bool = False
    ) -> None:
        fields = (topic, data, qos, retain, priority, self._envelope.last_seq)
        self._with_room(self._outbox.put, fields)
