"""What a topic alone settles about every message on it, worked out once for each topic."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nervus.wire.contracts import CONTRACTS, CompactMeta, FullMeta, ReasonCode, RejectStage
from nervus.wire.model import Contract
from nervus.wire.reader import Reader, reader
from nervus.wire.registries import channels, names
from nervus.wire.topic import Address
from nervus.wire.topic_parser import is_legacy, parse
from nervus.wire.verdict import Broker

HARD_LIMIT = 8192
"""No topic takes more bytes than this, whatever topics.json says."""

_SCOPE_LEVELS = ("device", "room", "house", "user_session")

Turned = tuple[ReasonCode, RejectStage, str]
Stated = tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class Route:
    """What the guard holds a message of one topic to.

    Attributes:
        max_bytes: What the topic takes.
        refusal: Reason code, stage and text, when nothing on this topic passes.
        name: Of the contract.
        asks: Whether the contract asks more of its metadata than the profile and an expiry.
        topic: Name of the row of topics.json.
        contract: The model, and what reads it.
        profile: The meta fields that its broker's profile needs, where the contract leaves it open.
        in_meta: Fields that meta may state, and what the topic says they are.
        stated: The names in `in_meta`, and content_type, which the bytes must agree with.
        in_payload: The same of the payload.
        needs_looking: Whether `profile` or `registered` names a field.
        registered: Fields of the payload whose value must be in a registry: which, what it lists.
        source: Who must have sent it, when the topic says so.
        device_id: The board it comes from, when its scope must be granted.
        scope: `scope_level/scope` of such a topic.
    """

    address: Address
    max_bytes: int
    refusal: Turned | None
    topic: str
    name: str
    asks: bool
    contract: type[Contract]
    reader: Reader
    profile: tuple[str, ...]
    in_meta: Stated
    stated: frozenset[str]
    in_payload: Stated
    registered: tuple[tuple[str, str, frozenset[str]], ...]
    needs_looking: bool
    source: str | None
    device_id: str | None
    scope: str


@lru_cache(maxsize=16_384)
def route(broker: Broker, topic: str, retain: bool) -> Route | None:  # noqa: FBT001 - a packet's flag
    """The route of a packet's head, or None when topics.json has no such topic."""
    address = parse(topic)
    if address is None:
        return None
    spec, levels = address.spec, address.levels
    contract = CONTRACTS[spec.contract]
    payload: Any = contract.__annotations__["payload"]
    source, device_id = _identity(address)
    in_meta = _in_meta(address)
    profile = _PROFILES[broker] if spec.contract in _EITHER_PROFILE else ()
    return Route(
        address=address,
        max_bytes=min(spec.max_bytes, HARD_LIMIT),
        refusal=_refusal(address, broker, retain=retain),
        topic=spec.name,
        name=spec.contract,
        asks=bool(contract.required_meta or contract.forbidden_meta),
        contract=contract,
        reader=reader(contract),
        profile=profile,
        in_meta=in_meta,
        stated=frozenset(("content_type", *(name for name, _ in in_meta))),
        in_payload=tuple(
            (name, levels[name]) for name in spec.variables if name in payload.model_fields
        ),
        registered=tuple(
            (name, registry, names(registry)) for name, registry in payload.registered
        ),
        needs_looking=bool(profile or payload.registered),
        source=source,
        device_id=device_id if "scope_level" in levels else None,
        scope=f"{levels.get('scope_level')}/{levels.get('scope')}",
    )


def unlisted(topic: str) -> Turned:
    """Reason code, stage and text for a topic without a route."""
    if is_legacy(topic):
        return "legacy_topic", "topic", "write event or state after the branch"
    return "unknown_topic", "topic", "no such topic in topics.json"


def _refusal(address: Address, broker: Broker, *, retain: bool) -> Turned | None:
    spec, levels = address.spec, address.levels
    if broker not in spec.brokers:
        return "wrong_broker", "topic", f"belongs on {' and '.join(spec.brokers)}"
    if retain and not spec.retained:
        return "retained_event", "topic", "an event is never retained"
    if spec.retained and not retain:
        return "not_retained_state", "topic", "a state is always retained"
    if levels.get("scope_level", "room") not in _SCOPE_LEVELS:
        return "unknown_topic", "topic", f"scope level: one of {', '.join(_SCOPE_LEVELS)}"
    if levels.get("channel", "somatic") not in channels():
        return "unknown_channel", "topic", "no such channel in the registry"
    return None


def _identity(address: Address) -> tuple[str | None, str | None]:
    """The source that the topic demands, and the board it is when it is one."""
    spec, levels = address.spec, address.levels
    if "board" in spec.publish and spec.name != "reject":
        return f"device:{levels['device_id']}", levels["device_id"]
    return levels.get("identity"), None


def _in_meta(address: Address) -> Stated:
    levels = address.levels
    stated = [(name, levels[name]) for name in address.spec.variables if name in _META]
    if "scope_level" not in levels:
        stated += [("scope", levels["device_id"]), ("scope_level", "device")]
    return tuple(stated)


_META = CompactMeta.model_fields.keys()
_PROFILES = {
    broker: tuple(name for name, field in profile.model_fields.items() if field.is_required())
    for broker, profile in (("spinal", CompactMeta), ("core", FullMeta))
}
_EITHER_PROFILE = frozenset(
    name
    for name, contract in CONTRACTS.items()
    if contract.model_fields["meta"].annotation not in (CompactMeta, FullMeta)
)
