"""The guard: the one pipeline every message passes before a plane sees it.

size → topic → decode → allow-list → schema → drift → agreement → identity → expiry → dedupe.
Pure: bytes, topic and time in; an accepted message, a removed state or a typed reject out.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from pydantic import ValidationError

from nervus.wire.decode import DecodeError, has_null
from nervus.wire.encodings import CONTENT_TYPES, JSON, decode, told_by
from nervus.wire.mint import lifetime
from nervus.wire.model import Contract, key_count
from nervus.wire.route import HARD_LIMIT, Route, route, unlisted
from nervus.wire.topic import LEVEL_LIMIT, TopicSpec
from nervus.wire.topic_parser import parse
from nervus.wire.verdict import Accepted, Packet, Refusal, Rejected, Removed, Verdict

FUTURE_LIMIT_MS: Final = 60_000
DEDUPE_LIMIT: Final = 16_384


class Guard:
    """Judges packets for one part.

    `accepts` are the topics the part takes; everything else is refused (S0-82). `granted` tells
    the `scope_level/scope` of a device id, or None when there is no such device; without it only
    a device scope is held to its device, and the rest is left to the broker's permissions.
    """

    def __init__(
        self,
        accepts: Collection[TopicSpec],
        *,
        granted: Callable[[str], str | None] | None = None,
        dedupe_limit: int = DEDUPE_LIMIT,
    ) -> None:
        self._accepts = frozenset(spec.name for spec in accepts)
        self._granted = granted
        self._dedupe_limit = dedupe_limit
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def judge(self, packet: Packet, now_ms: int) -> Verdict:
        """The verdict on one packet at `now_ms` (unix milliseconds); never raises."""
        meta: Mapping[str, Any] = {}
        try:
            way = route(packet.broker, packet.topic, packet.retain)
            if way is None or way.refusal or not 0 < len(packet.payload) <= way.max_bytes:
                return _at_the_door(way, packet)
            taken = way.address.spec.name in self._accepts
            message = _read(way, packet.payload, taken=taken)
            meta = message.meta.__dict__
            if (
                not taken
                or way.asks
                or not way.name == meta["contract"] == meta["message_type"]
                or (meta["ttl_ms"] is None and meta["expires_at"] is None)
            ):
                _fit(way, message, taken=taken)
            _agree(way, meta, message, packet.payload)
            self._identify(way, meta["source"])
            left_ms = _live(meta, now_ms)
            if not packet.retain:
                self._first_time((meta["source"], meta["message_id"]))
        except Refusal as refusal:
            return _rejected(packet, refusal, meta or refusal.meta)
        # As Accepted(…), without the Python function that a named tuple's constructor is.
        return _new(Accepted, (way.address, message, packet.broker, now_ms, left_ms))

    def _identify(self, way: Route, source: str) -> None:
        if way.source is None:
            return
        if source != way.source:
            raise Refusal("identity_mismatch", "identity", f"source must be {way.source!r}")
        if way.device_id is None:
            return
        if self._granted is not None:
            grant = self._granted(way.device_id)
        elif way.scope.startswith("device/"):
            grant = f"device/{way.device_id}"
        else:
            return
        if way.scope != grant:
            raise Refusal("scope_not_granted", "identity", f"{way.device_id} is granted {grant}")

    def _first_time(self, key: tuple[str, str]) -> None:
        if key in self._seen:
            raise Refusal("duplicate", "dedupe", "this message_id came from this source before")
        if len(self._seen) >= self._dedupe_limit:
            self._seen.popitem(last=False)
        self._seen[key] = None


def _at_the_door(way: Route | None, packet: Packet) -> Removed:
    """Turn away what no look at the message could let pass; or it removes a state."""
    size, limit = len(packet.payload), HARD_LIMIT if way is None else way.max_bytes
    if size > limit:
        raise Refusal("oversize", "size", f"{size} bytes, {limit} at most")
    if way is None:
        raise Refusal(*unlisted(packet.topic))
    if way.refusal is not None:
        raise Refusal(*way.refusal)
    if packet.retain:
        return Removed(way.address, packet.broker)
    raise Refusal("empty_payload", "size", "an event has a payload")


def _read(way: Route, data: bytes, *, taken: bool) -> Contract:
    """Parse and validate at once; only what is odd is looked at twice.

    pydantic's own JSON parser builds the model straight from the text, but keeps the last of two
    equal keys and takes null for an absent field.
    """
    try:
        if data[0] == _BRACE:
            message = way.from_json(data)
            # Without escapes and blanks, `":` ends each key and otherwise at most begins a text: as
            # many as there are keys means that none came twice.
            if (
                data.count(b'":') == key_count(message)
                and b"null" not in data
                and b"\\" not in data
                and len(data.split(None, 1)) == 1
            ):
                return message
            value = decode(data)
        else:
            value = decode(data)
            message = way.from_value(value)
    except (ValidationError, DecodeError) as error:
        raise _unreadable(way, data, error, taken=taken) from error
    if has_null(data, value):
        raise Refusal("schema_invalid", "schema", _NULL, value["meta"])
    return message


def _unreadable(way: Route, data: bytes, error: ValueError, *, taken: bool) -> Refusal:
    """The first stage that a message fails which could not be read."""
    try:
        value = decode(data)
    except DecodeError as broken:
        return Refusal("decode_error", "decode", str(broken))
    if not isinstance(value, dict) or not isinstance(value.get("meta"), dict):
        return Refusal("schema_invalid", "schema", "a message is an object with meta and payload")
    meta = value["meta"]
    if not taken or meta.get("contract") != way.name:
        return Refusal("contract_not_allowed", "allow", _not_taken(meta.get("contract")), meta)
    if meta.get("schema_version") not in (None, "v1"):
        return Refusal("unsupported_version", "schema", "schema_version: v1 is spoken here", meta)
    encoding = meta.get("content_type", JSON), meta.get("content_encoding", "identity")
    if encoding[0] not in CONTENT_TYPES or encoding[1] != "identity":
        reason = f"{' or '.join(CONTENT_TYPES)}, identity is taken here"
        return Refusal("unsupported_encoding", "schema", reason, meta)
    reason = _NULL if has_null(data, value) else _first(error)
    return Refusal("schema_invalid", "schema", reason, meta)


def _first(error: ValueError) -> str:
    assert isinstance(error, ValidationError)  # noqa: S101 - it decodes, so its fields are wrong
    if (count := error.error_count()) > _FAULTS:
        # To list them all takes a hundred times what the message does, only to tell the first.
        return f"message: {count} faults"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'message'}: {first['msg']}"


def _fit(way: Route, message: Contract, *, taken: bool) -> None:
    meta = message.meta
    fault = way.contract.fault(meta)
    if not taken or (fault and fault[0] == "contract"):
        raise Refusal("contract_not_allowed", "allow", _not_taken(meta.contract))
    if fault:
        if fault[0] == "expiry":
            raise Refusal("expiry_missing", "expiry", fault[1])
        raise Refusal("schema_invalid", "schema", f"message: {fault[1]}")
    if meta.message_type != meta.contract:
        raise Refusal("contract_drift", "drift", "message_type must equal contract")


def _agree(way: Route, meta: Mapping[str, Any], message: Contract, data: bytes) -> None:
    payload = message.payload.__dict__
    stated = meta["content_type"]
    if stated is not None and stated != told_by(data):
        raise Refusal("unsupported_encoding", "agreement", f"the bytes are {told_by(data)}")
    if way.needs_looking:
        _look(way, meta, payload)
    if not way.meta_levels.isdisjoint(message.meta.__pydantic_fields_set__):
        for name, wanted in way.in_meta:
            if meta[name] not in (None, wanted):
                raise _mismatch(name, wanted)
    for name, wanted in way.in_payload:
        if payload[name] not in (None, wanted):
            raise _mismatch(name, wanted)


def _look(way: Route, meta: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
    for name in way.profile:
        # The contract takes either profile; which one is needed the broker says.
        if meta[name] is None:
            raise Refusal("schema_invalid", "schema", f"meta.{name} is required on this broker")
    for name, registry, listed in way.registered:
        if payload[name] not in listed:
            raise Refusal("unknown_name", "agreement", f"{name} is not in registries/{registry}")


def _mismatch(name: str, wanted: str) -> Refusal:
    return Refusal("topic_mismatch", "agreement", f"{name} is {wanted!r} in the topic")


def _live(meta: Mapping[str, Any], now_ms: int) -> int | None:
    try:
        produced, left_ms = lifetime(meta, now_ms)
    except ValueError as error:
        raise Refusal("schema_invalid", "schema", f"meta: {error}") from error
    if produced > now_ms + FUTURE_LIMIT_MS:
        raise Refusal("from_the_future", "expiry", f"made {produced - now_ms} ms from now")
    if left_ms is not None and left_ms <= 0:
        raise Refusal("expired", "expiry", f"expired {-left_ms} ms ago")
    return left_ms


def _rejected(packet: Packet, refusal: Refusal, meta: Mapping[str, Any]) -> Rejected:
    # Only what has the right form may travel on in a RejectEvent.
    message_id = _text(meta.get("message_id"), _ULID_LENGTH)
    return Rejected(
        refusal.reason_code,
        refusal.stage,
        refusal.reason,
        packet,
        parse(packet.topic),
        _text(meta.get("source"), _SOURCE_LENGTH),
        message_id if message_id and _is_ulid(message_id) else None,
        _text(meta.get("contract"), LEVEL_LIMIT),
    )


def _not_taken(contract: object) -> str:
    return f"{contract!s:.64} is not taken here"


def _text(value: object, limit: int) -> str | None:
    return value[:limit] if isinstance(value, str) and value and value.isprintable() else None


def _is_ulid(text: str) -> bool:
    return len(text) == _ULID_LENGTH and text[0] < "8" and set(text) <= _CROCKFORD


_NULL: Final = "null is never a value: leave the field out"
_new: Final = tuple.__new__
_FAULTS: Final = 32
_BRACE: Final = ord("{")
_ULID_LENGTH: Final = 26
_SOURCE_LENGTH: Final = 80
_CROCKFORD: Final = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
