"""The guard: the one pipeline every message passes before a plane sees it.

size → topic → decode → allow-list → schema → drift → agreement → identity → expiry → dedupe.
Pure: bytes, topic and time in; an accepted message, a removed state or a typed reject out.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from pydantic import ValidationError

from nervus.wire.contracts import HybridClock
from nervus.wire.decode import DecodeError, has_null
from nervus.wire.encodings import CONTENT_TYPES, JSON, decode, told_by
from nervus.wire.mint import lifetime
from nervus.wire.model import Contract
from nervus.wire.narrow import Narrow
from nervus.wire.packet import Packet
from nervus.wire.route import HARD_LIMIT, Route, route, unlisted
from nervus.wire.topic import LEVEL_LIMIT, Address, TopicSpec
from nervus.wire.topic_parser import parse
from nervus.wire.verdict import Accepted, Refusal, Rejected, Removed, Verdict

FUTURE_LIMIT_MS: Final = 60_000
Reading = tuple[int, int]
DEDUPE_LIMIT: Final = 32_768


class Guard:
    """Judges packets for one part.

    `accepts` are the topics the part takes; everything else is refused (S0-82). `granted` tells
    the `scope_level/scope` of a device id, or None when there is no such device; without it only
    a device scope is held to its device, and the rest is left to the broker's permissions. Of the
    ids it has let pass it remembers at most `dedupe_limit`, the newest half of them for certain.
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
        self._generation = max(1, dedupe_limit // 2)
        self._newer: set[str] = set()
        self._older: set[str] = set()
        self._latest: dict[str, Reading] = {}
        self._latest_older: dict[str, Reading] = {}
        self._forgotten: OrderedDict[str, Reading] = OrderedDict()

    def judge(self, packet: Packet, now_ms: int) -> Verdict:
        """The verdict on one packet at `now_ms` (unix milliseconds); never raises."""
        meta: Mapping[str, Any] = {}
        try:
            broker, topic, data, retain = packet
            way = route(broker, topic, retain)
            if way is None or way.refusal or not 0 < len(data) <= way.max_bytes:
                return _at_the_door(way, packet)
            taken = way.topic in self._accepts
            usual = way.usual if taken else None
            message = None if usual is None else _read_as_usual(usual, way, data)
            read_wholly = message is None
            if message is None:
                message = _read(way, data, taken)
            fields = message.__dict__
            meta, payload = fields["meta"].__dict__, fields["payload"].__dict__
            if read_wholly:
                _fit(way, message, taken=taken)
                _agree(way, meta, payload, data)
                way.note(message)
            address = _of_action(way, topic, meta) if way.shared else way.address
            for name, wanted in way.in_payload:
                if payload.get(name, wanted) != wanted and payload[name] is not None:
                    raise _mismatch(name, wanted)
            source = meta["source"]
            if way.source is not None:
                self._identify(way, source)
            left_ms = _live(meta, now_ms)
            if not retain:
                if (reading := meta.get("hlc")) is not None:
                    self._in_order(source, reading, now_ms)
                self._first_time(meta["message_id"] + source)
        except Refusal as refusal:
            return _rejected(packet, refusal, meta or refusal.meta)
        # As Accepted(…), without the Python function that a named tuple's constructor is.
        return _new(Accepted, (address, message, broker, now_ms, left_ms, data))

    def _identify(self, way: Route, source: str) -> None:
        if source != way.source:
            raise Refusal("identity_mismatch", "identity", f"source must be {way.source!r}")
        if way.device_id is None:
            return
        grant = way.presumed if self._granted is None else self._granted(way.device_id)
        if way.scope != grant:
            raise Refusal("scope_not_granted", "identity", f"{way.device_id} is granted {grant}")

    def _first_time(self, key: str) -> None:
        newer = self._newer
        if key in newer or key in self._older:
            raise Refusal("duplicate", "dedupe", "this message_id came from this source before")
        newer.add(key)
        if len(newer) >= self._generation:
            self._older, self._newer = newer, set()
            self._forget()

    def _in_order(self, source: str, reading: HybridClock, now_ms: int) -> None:
        """Refuse what a source sent before something of it that is forgotten: it may be a repeat.

        An id is remembered for a while, the latest reading among those that are not any longer for
        good: so a message with a reading cannot be played again after the ids have moved on.
        """
        if reading.wall_ms > now_ms + FUTURE_LIMIT_MS:
            ahead_ms = reading.wall_ms - now_ms
            raise Refusal("from_the_future", "expiry", f"its hlc is {ahead_ms} ms from now")
        key = (reading.wall_ms, reading.logical)
        if key <= self._forgotten.get(source, _NEVER):
            reason = "its hlc lies before what this source sent long ago"
            raise Refusal("duplicate", "dedupe", reason)
        self._latest[source] = max(key, self._latest.get(source, _NEVER))

    def _forget(self) -> None:
        for source, reading in self._latest_older.items():
            self._forgotten[source] = max(reading, self._forgotten.pop(source, _NEVER))
            if len(self._forgotten) > self._generation:
                self._forgotten.popitem(last=False)
        self._latest_older, self._latest = self._latest, {}


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


def _is_plain(data: bytes) -> bool:
    """Whether this is JSON, if anything, where `":` ends each key and no text hides a character."""
    return not (
        data[0] != _BRACE
        or _BACKSLASH in data or _DEL in data
        # A blank before a colon is the only one that matters.
        or _TAB in data or _NEWLINE in data or _RETURN in data
        or (_BLANK in data and data.find(b" :") >= 0)
    )  # fmt: skip


def _read_as_usual(usual: Narrow, way: Route, data: bytes) -> Contract | None:
    """Read a message that has the usual fields, and agrees with its topic; None if it has not."""
    # As below, `":` tells keys: one too many is within a value, or came twice.
    more = data.count(b'":') - usual.keys
    if (more and (more < 0 or not usual.nests)) or not _is_plain(data):
        return None
    # Taken off first, here and below: to call what a slot holds as a method is slower.
    plainly = usual.plainly
    try:
        message = plainly(data)
    except ValidationError:
        return None
    fields = message.__dict__
    # Most nest no deeper: then these are all, and to look for deeper ones takes four times as long.
    if more and more != usual.least_keys(fields) and more != usual.inner_keys(fields):
        return None
    if way.states:
        stated = way.stated
        if stated(fields["meta"].__dict__) != way.agreed:
            return None
    return message


def _read(way: Route, data: bytes, taken: bool) -> Contract:  # noqa: FBT001 - Python calls by position faster
    """Parse and validate at once; only what is odd is read strictly.

    pydantic's own JSON parser builds the model straight from the text, but keeps the last of two
    equal keys.
    """
    if not _is_plain(data):
        return _read_strictly(way, data, taken=taken)
    plainly = way.reader.plainly
    try:
        message = plainly(data)
    except ValidationError as error:
        raise _unfit(way, data, _decoded(data), error, taken=taken) from error
    # `":` ends each key here, and otherwise at most begins a text: as many as there are keys means
    # that none came twice.
    fields = message.__dict__
    more = (
        data.count(b'":')
        - len(message.__pydantic_fields_set__)
        - len(fields["meta"].__pydantic_fields_set__)
        - len(fields["payload"].__pydantic_fields_set__)
    )
    if more and more != way.reader.inner_keys(fields):
        return _read_strictly(way, data, taken=taken)
    return message


def _read_strictly(way: Route, data: bytes, *, taken: bool) -> Contract:
    value = _decoded(data)
    try:
        return way.reader.strictly(value)
    except ValidationError as error:
        raise _unfit(way, data, value, error, taken=taken) from error


def _decoded(data: bytes) -> Any:
    try:
        return decode(data)
    except DecodeError as error:
        raise Refusal("decode_error", "decode", str(error)) from error


def _unfit(way: Route, data: bytes, value: Any, error: ValidationError, *, taken: bool) -> Refusal:
    """The first stage that a message fails which is not what its contract says."""
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


def _first(error: ValidationError) -> str:
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


def _agree(way: Route, meta: Mapping[str, Any], payload: Mapping[str, Any], data: bytes) -> None:
    stated = meta["content_type"]
    if stated is not None and stated != told_by(data):
        raise Refusal("unsupported_encoding", "agreement", f"the bytes are {told_by(data)}")
    if way.needs_looking:
        _look(way, meta, payload)
    for name, wanted in way.in_meta:
        if meta.get(name) not in (None, wanted):
            raise _mismatch(name, wanted)


def _of_action(way: Route, topic: str, meta: Mapping[str, Any]) -> Address:
    address = way.of_action(topic)
    action_id = address.levels["action_id"]
    if meta.get("action_id", action_id) != action_id and meta["action_id"] is not None:
        raise _mismatch("action_id", action_id)
    return address


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
_NEVER: Final = (-1, -1)
_new: Final = tuple.__new__
_FAULTS: Final = 32
# By their numbers: of bytes, `in` tries first whether they are one, which costs more than to look.
_BRACE, _BACKSLASH, _DEL, _TAB, _NEWLINE, _RETURN, _BLANK = b"{\\\x7f\t\n\r "
_ULID_LENGTH: Final = 26
_SOURCE_LENGTH: Final = 80
_CROCKFORD: Final = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
