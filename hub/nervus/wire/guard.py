"""The guard: the one pipeline every message passes before a plane sees it.

size → topic → decode → allow-list → schema → drift → agreement → identity → expiry → dedupe.
Pure: bytes, topic and time in; an accepted message, a removed state or a typed reject out.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Literal

from pydantic import ValidationError

from nervus.wire.contracts import CONTRACTS, CompactMeta, FullMeta, ReasonCode, RejectStage
from nervus.wire.decode import DecodeError, decode, has_null
from nervus.wire.mint import expiry_ms, produced_ms
from nervus.wire.model import Contract
from nervus.wire.registries import channels, names
from nervus.wire.topic import LEVEL_LIMIT, Address, TopicSpec
from nervus.wire.topic_parser import is_legacy, parse

HARD_LIMIT = 8192
"""No topic takes more bytes than this, whatever topics.json says."""

SAMPLE_BYTES = 256
FUTURE_LIMIT_MS = 60_000
DEDUPE_LIMIT = 16_384

Broker = Literal["spinal", "core"]


@dataclass(frozen=True, slots=True)
class Packet:
    """What came from a broker."""

    broker: Broker
    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that passed; `left_ms` is what is left of its life, None when it has no end."""

    address: Address
    message: Contract
    broker: Broker
    received_ms: int
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class Removed:
    """A retained state was removed by an empty payload."""

    address: Address
    broker: Broker


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that did not pass; fields that could not be read are None."""

    reason_code: ReasonCode
    stage: RejectStage
    reason: str
    packet: Packet
    address: Address | None
    source: str | None
    message_id: str | None
    contract: str | None

    @property
    def sample(self) -> str:
        """The beginning of what came, with what cannot be printed replaced."""
        text = self.packet.payload[:SAMPLE_BYTES].decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

    @property
    def sha256(self) -> str:
        """Digest of what came, hexadecimal."""
        return sha256(self.packet.payload).hexdigest()


Verdict = Accepted | Removed | Rejected


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
        self._seen: dict[tuple[str, str], None] = {}

    def judge(self, packet: Packet, now_ms: int) -> Verdict:
        """The verdict on one packet at `now_ms` (unix milliseconds); never raises."""
        case = _Case(packet)
        try:
            return self._judge(case, now_ms)
        except _Refusal as refusal:
            return case.rejected(refusal)

    def _judge(self, case: "_Case", now_ms: int) -> Accepted | Removed:
        packet = case.packet
        address = _topic(case)
        if not packet.payload:
            if address.spec.retained:
                return Removed(address, packet.broker)
            raise _Refusal("empty_payload", "size", "an event has a payload")
        value = _decode(case)
        _allow(address.spec, case.meta, self._accepts)
        message = _validate(address.spec.contract, packet.payload, value)
        _agree(address, message, packet.broker)
        self._identify(address, message)
        left_ms = _live(message, now_ms)
        if not address.spec.retained:
            self._first_time(message)
        return Accepted(address, message, packet.broker, now_ms, left_ms)

    def _identify(self, address: Address, message: Contract) -> None:
        levels, source = address.levels, message.meta.source
        if "identity" in levels and source != levels["identity"]:
            raise _Refusal(
                "identity_mismatch", "identity", f"source must be {levels['identity']!r}"
            )
        if "board" in address.spec.publish and address.spec.name != "reject":
            self._identify_board(levels, source)

    def _identify_board(self, levels: dict[str, str], source: str) -> None:
        device_id = levels["device_id"]
        if source != f"device:{device_id}":
            raise _Refusal("identity_mismatch", "identity", f"source must be 'device:{device_id}'")
        if "scope_level" not in levels:
            return
        scope = f"{levels['scope_level']}/{levels['scope']}"
        if self._granted is not None:
            grant = self._granted(device_id)
        else:
            grant = f"device/{device_id}" if levels["scope_level"] == "device" else scope
        if scope != grant:
            raise _Refusal("scope_not_granted", "identity", f"{device_id} is granted {grant}")

    def _first_time(self, message: Contract) -> None:
        key = (message.meta.source, message.meta.message_id)
        if key in self._seen:
            raise _Refusal("duplicate", "dedupe", "this message_id came from this source before")
        if len(self._seen) >= self._dedupe_limit:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = None


class _Refusal(Exception):  # noqa: N818 - a verdict on its way up, not an error of ours
    def __init__(self, reason_code: ReasonCode, stage: RejectStage, reason: str) -> None:
        super().__init__(reason)
        self.reason_code: ReasonCode = reason_code
        self.stage: RejectStage = stage
        self.reason = reason[:200]


class _Case:
    """What is known of a packet while it is judged."""

    __slots__ = ("address", "meta", "packet")

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.address: Address | None = None
        self.meta: dict[str, Any] = {}

    def rejected(self, refusal: _Refusal) -> Rejected:
        # Only what has the right form may travel on in a RejectEvent.
        message_id = _text(self.meta.get("message_id"), _ULID_LENGTH)
        return Rejected(
            refusal.reason_code,
            refusal.stage,
            refusal.reason,
            self.packet,
            self.address,
            _text(self.meta.get("source"), _SOURCE_LENGTH),
            message_id if message_id and _is_ulid(message_id) else None,
            _text(self.meta.get("contract"), LEVEL_LIMIT),
        )


def _topic(case: _Case) -> Address:
    packet = case.packet
    if len(packet.payload) > HARD_LIMIT:
        raise _Refusal("oversize", "size", f"{len(packet.payload)} bytes, {HARD_LIMIT} at most")
    address = case.address = parse(packet.topic)
    if address is None:
        if is_legacy(packet.topic):
            raise _Refusal("legacy_topic", "topic", "write event or state after the branch")
        raise _Refusal("unknown_topic", "topic", "no such topic in topics.json")
    spec = address.spec
    if len(packet.payload) > spec.max_bytes:
        raise _Refusal("oversize", "size", f"{len(packet.payload)} bytes, {spec.max_bytes} at most")
    if packet.broker not in spec.brokers:
        raise _Refusal("wrong_broker", "topic", f"belongs on {' and '.join(spec.brokers)}")
    if packet.retain and not spec.retained:
        raise _Refusal("retained_event", "topic", "an event is never retained")
    if spec.retained and not packet.retain:
        raise _Refusal("not_retained_state", "topic", "a state is always retained")
    if address.levels.get("scope_level", "room") not in _SCOPE_LEVELS:
        raise _Refusal("unknown_topic", "topic", f"scope level: one of {', '.join(_SCOPE_LEVELS)}")
    if address.levels.get("channel", "somatic") not in channels():
        raise _Refusal("unknown_channel", "topic", "no such channel in the registry")
    return address


_SCOPE_LEVELS = ("device", "room", "house", "user_session")


def _decode(case: _Case) -> dict[str, Any]:
    try:
        value = decode(case.packet.payload)
    except DecodeError as error:
        raise _Refusal("decode_error", "decode", str(error)) from error
    if not isinstance(value, dict) or not isinstance(value.get("meta"), dict):
        raise _Refusal("schema_invalid", "schema", "a message is an object with meta and payload")
    case.meta = value["meta"]
    return value


def _allow(spec: TopicSpec, meta: dict[str, Any], accepts: frozenset[str]) -> None:
    if spec.name not in accepts or meta.get("contract") != spec.contract:
        raise _Refusal(
            "contract_not_allowed", "allow", f"{meta.get('contract')!s:.64} is not taken here"
        )
    if meta.get("schema_version") not in (None, "v1"):
        raise _Refusal("unsupported_version", "schema", "schema_version: v1 is spoken here")
    content_type = meta.get("content_type", "application/json")
    if content_type != "application/json" or meta.get("content_encoding", "identity") != "identity":
        raise _Refusal("unsupported_encoding", "schema", "application/json, identity is taken here")


def _validate(contract: str, data: bytes, value: dict[str, Any]) -> Contract:
    if has_null(data, value):
        raise _Refusal("schema_invalid", "schema", "null is never a value: leave the field out")
    try:
        message: Contract = CONTRACTS[contract].__pydantic_validator__.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "message"
        if first["type"] == "expiry":
            raise _Refusal("expiry_missing", "expiry", first["msg"]) from error
        raise _Refusal("schema_invalid", "schema", f"{where}: {first['msg']}") from error
    if message.meta.message_type != message.meta.contract:
        raise _Refusal("contract_drift", "drift", "message_type must equal contract")
    return message


def _agree(address: Address, message: Contract, broker: Broker) -> None:
    meta, payload = message.meta, message.payload
    if address.spec.contract in _EITHER_PROFILE:
        # The contract takes either profile; which one is needed the broker says.
        for name in _PROFILES[broker]:
            if getattr(meta, name) is None:
                raise _Refusal(
                    "schema_invalid", "schema", f"meta.{name} is required on the {broker} broker"
                )
    for name, in_meta in _stated(address.spec):
        stated = getattr(meta if in_meta else payload, name)
        if stated is not None and stated != address.levels[name]:
            wanted = address.levels[name]
            raise _Refusal("topic_mismatch", "agreement", f"{name} is {wanted!r} in the topic")
    if "scope_level" not in address.levels:
        device_id = address.levels.get("device_id")
        if meta.scope not in (None, device_id) or meta.scope_level not in (None, "device"):
            raise _Refusal(
                "topic_mismatch", "agreement", "a device topic has the scope device and its id"
            )
    for name, registry in payload.registered:
        if getattr(payload, name) not in names(registry):
            raise _Refusal("unknown_name", "agreement", f"{name} is not in registries/{registry}")


@cache
def _stated(spec: TopicSpec) -> tuple[tuple[str, bool], ...]:
    """The variable levels of a topic that its message may state too, and whether in its meta."""
    payload = CONTRACTS[spec.contract].__annotations__["payload"]
    return tuple(
        (name, model is CompactMeta)
        for name in spec.variables
        for model in (CompactMeta, payload)
        if name in model.model_fields
    )


def _live(message: Contract, now_ms: int) -> int | None:
    try:
        left_ms = expiry_ms(message.meta, now_ms)
        produced = produced_ms(message.meta, now_ms)
    except ValueError as error:
        raise _Refusal("schema_invalid", "schema", f"meta: {error}") from error
    if produced > now_ms + FUTURE_LIMIT_MS:
        raise _Refusal("from_the_future", "expiry", f"made {produced - now_ms} ms from now")
    if left_ms is not None and left_ms <= 0:
        raise _Refusal("expired", "expiry", f"expired {-left_ms} ms ago")
    return left_ms


def _text(value: object, limit: int) -> str | None:
    return value[:limit] if isinstance(value, str) and value and value.isprintable() else None


def _is_ulid(text: str) -> bool:
    return len(text) == _ULID_LENGTH and text[0] < "8" and set(text) <= _CROCKFORD


_PROFILES = {
    broker: tuple(name for name, field in profile.model_fields.items() if field.is_required())
    for broker, profile in (("spinal", CompactMeta), ("core", FullMeta))
}
_EITHER_PROFILE = frozenset(
    name
    for name, contract in CONTRACTS.items()
    if contract.model_fields["meta"].annotation not in (CompactMeta, FullMeta)
)
_ULID_LENGTH = 26
_SOURCE_LENGTH = 80
_CROCKFORD = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
