"""What a topic alone settles about every message on it, worked out once for each topic."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any

from nervus.wire.contracts import CONTRACTS, CompactMeta, FullMeta, ReasonCode, RejectStage
from nervus.wire.model import Contract
from nervus.wire.narrow import Narrow
from nervus.wire.packet import Broker
from nervus.wire.reader import Reader, reader
from nervus.wire.registries import channels, names
from nervus.wire.topic import Address
from nervus.wire.topic_parser import is_legacy, parse
from nervus.wire.usual import Habit

HARD_LIMIT = 8192
"""No topic takes more bytes than this, whatever topics.json says."""

_ID_LENGTH = 26
_SCOPE_LEVELS = ("device", "room", "house", "user_session")

Turned = tuple[ReasonCode, RejectStage, str]
Stated = tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class Route:
    """What the guard holds a message of one topic to.

    Attributes:
        in_meta: Fields that meta may state, and what the topic says they are; an action comes last.
        max_bytes: What the topic takes.
        refusal: Reason code, stage and text, when nothing on this topic passes.
        name: Of the contract.
        topic: Name of the row of topics.json.
        contract: The model, and what reads it.
        profile: The meta fields that its broker's profile needs, where the contract leaves it open.
        in_payload: Fields that the payload states, and what the topic says they are.
        needs_looking: Whether `profile` or `registered` names a field.
        registered: Fields of the payload whose value must be in a registry: which, what it lists.
        source: Who must have sent it, when the topic says so.
        device_id: The board it comes from, when its scope must be granted.
        scope: `scope_level/scope` of such a topic.
        presumed: The scope it is held to where nobody tells what was granted.
        shared: Whether actions share it: `address` is that of one of them, and what else names an
            action is left out.
        stated: From metadata, what they state of the fields of `in_meta`; `agreed` if they agree.
        usual: What reads its messages once they have looked alike for a while.
        states: Whether these state all fields of `in_meta`, or else none.
    """

    address: Address
    in_meta: Stated
    max_bytes: int
    refusal: Turned | None
    topic: str
    name: str
    contract: type[Contract]
    reader: Reader
    profile: tuple[str, ...]
    in_payload: Stated
    registered: tuple[tuple[str, str, frozenset[str]], ...]
    needs_looking: bool
    source: str | None
    device_id: str | None
    scope: str
    presumed: str
    stated: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    agreed: tuple[str, ...]
    shared: bool = False
    usual: Narrow | None = None
    states: bool = False
    habit: Habit = field(default_factory=Habit)

    def note(self, message: Contract) -> None:
        """Get used to messages like one that was read wholly and found right.

        What fields it has says whether it has those that contract and broker ask for. Where that is
        not all, each message is read wholly.
        """
        if self.needs_looking:
            return
        self.usual = self.habit.after(message, self.usual)
        if self.usual is not None:
            given = [name in self.usual.meta for name, _ in self.in_meta]
            self.states = all(given)
            if any(given) and not self.states:
                self.usual = None

    def of_action(self, topic: str) -> Address:
        """The address of one of the actions that share this route."""
        one = self.address
        return Address(one.spec, topic, {**one.levels, "action_id": topic[-_ID_LENGTH:]})


@lru_cache(maxsize=16_384)
def route(broker: Broker, topic: str, retain: bool) -> Route | None:  # noqa: FBT001 - a packet's flag
    """The route of a packet's head, or None when topics.json has no such topic."""
    stem, _, last = topic.rpartition("/")
    if len(last) == _ID_LENGTH and last.isascii() and last.isalnum():
        shared = _of_actions(broker, stem, retain)
        if shared is not None:
            return shared
    return _worked_out(broker, topic, retain=retain)


@lru_cache(maxsize=4_096)
def _of_actions(broker: Broker, stem: str, retain: bool) -> Route | None:  # noqa: FBT001 - as above
    """The route that all actions under `stem` share; None where no action follows it.

    Each action has a topic of its own, which comes once: nothing but its id is new. One of letters
    and digits stands in a topic as it is.
    """
    one = _worked_out(broker, f"{stem}/{'0' * _ID_LENGTH}", retain=retain)
    if one is None or one.in_meta[-1][0] != "action_id":
        return None
    return replace(one, shared=True, **_agreement(one.in_meta[:-1]))


# The boards of a room share theirs, so that ten thousand have room.
@lru_cache(maxsize=1_024)
def _agreement(in_meta: Stated) -> dict[str, Any]:
    names, texts = zip(*in_meta, strict=True)
    return {"in_meta": in_meta, "stated": _getter(names), "agreed": texts}


_getter = cache(lambda names: itemgetter(*names))


def _worked_out(broker: Broker, topic: str, *, retain: bool) -> Route | None:
    # Not by parse's own memory: the route that is remembered holds the address.
    address = parse.__wrapped__(topic)
    if address is None:
        return None
    spec, levels = address.spec, address.levels
    contract = CONTRACTS[spec.contract]
    payload: Any = contract.__annotations__["payload"]
    source, device_id = _identity(address)
    profile = _PROFILES[broker] if spec.contract in _EITHER_PROFILE else ()
    scope = _same(f"{levels.get('scope_level')}/{levels.get('scope')}")
    return Route(
        address=address,
        max_bytes=min(spec.max_bytes, HARD_LIMIT),
        refusal=_refusal(address, broker, retain=retain),
        topic=spec.name,
        name=spec.contract,
        contract=contract,
        reader=reader(contract),
        profile=profile,
        **_agreement(_in_meta(address)),
        in_payload=_same(
            tuple((name, levels[name]) for name in spec.variables if name in payload.model_fields)
        ),
        registered=tuple(
            (name, registry, names(registry)) for name, registry in payload.registered
        ),
        needs_looking=bool(profile or payload.registered),
        source=source,
        device_id=device_id if "scope_level" in levels else None,
        scope=scope,
        presumed=f"device/{device_id}" if scope.startswith("device/") else scope,
    )


@lru_cache(maxsize=1_024)
def _same(value: Any) -> Any:
    """The first value that was equal to this one, for as long as it is remembered."""
    return value


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
        stated = [("scope", levels["device_id"]), ("scope_level", "device"), *stated]
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
