"""What parts on the core broker tell brainstem, each judged by the real guard."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from hub.plane_inputs import NOW_MS, judged
from nervus.brainstem import Brainstem, BrainstemSettings
from nervus.wire import Accepted, Mint, Publish, timestamp, topics
from nervus.wire.contracts import (
    GlobalBroadcast,
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
    ParameterUpdate,
    ParameterUpdatePayload,
    PatternRequest,
    PatternResponse,
    PatternResponsePayload,
    PatternTrigger,
    PatternTriggerPayload,
    RelayBundle,
)
from nervus.wire.model import Contract

KITCHEN = ("room", "kitchen")
HOUSE = ("house", "home")
_SEEDS = count(1_000)


def brainstem(seed: int = 1, **settings: Any) -> Brainstem:
    """A core, by default with its own settings."""
    mint = Mint("brainstem", "brainstem", seed=seed, boot=1)
    return Brainstem(BrainstemSettings(**settings), mint)


def of(contract: type[Contract], effects: Iterable[Any], broker: str = "core") -> list[Any]:
    """The messages of one contract that go to one broker."""
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Publish)
        and isinstance(effect.message, contract)
        and effect.on == broker
    ]


def bundles(effects: Iterable[Any]) -> list[Any]:
    """The RelayBundles among effects."""
    return of(RelayBundle, effects)


def requests(effects: Iterable[Any]) -> list[Any]:
    """The PatternRequests among effects."""
    return of(PatternRequest, effects)


def told(effects: Iterable[Any], kind: str = "alert", broker: str = "core") -> list[Any]:
    """The payloads of what is retained of alert or arousal."""
    spec = topics.GLOBAL_ALERT if kind == "alert" else topics.GLOBAL_AROUSAL
    mine = [e for e in effects if isinstance(e, Publish) and e.address.spec is spec]
    return [message.payload for message in of(GlobalBroadcast, mine, broker)]


def trigger(
    cause: str = "glass breaks",
    now_ms: int = NOW_MS,
    *,
    pattern: str = "startle",
    urgency: float = 1,
    scope: tuple[str, str] = KITCHEN,
    deadline_ms: int = 5_000,
) -> Accepted:
    """A trigger-source's word."""
    mint = Mint("glass-detector", "consumer", seed=next(_SEEDS), boot=1)
    payload = PatternTriggerPayload(pattern_type=pattern, trigger=cause, urgency=urgency)
    address = topics.pattern_trigger(*scope, pattern)
    publish = mint.full(PatternTrigger, address, payload, now_ms, deadline_ms=deadline_ms)
    return judged(publish, now_ms)


def response(
    request_id: str,
    now_ms: int = NOW_MS,
    *,
    pattern: str = "startle",
    scope: tuple[str, str] = KITCHEN,
    **answer: Any,
) -> Accepted:
    """A responder's answer: a status or a recommendation."""
    mint = Mint("responder", "consumer", seed=next(_SEEDS), boot=1)
    payload = PatternResponsePayload(request_id=request_id, pattern_type=pattern, **answer)
    address = topics.pattern_report(*scope, pattern)
    return judged(mint.full(PatternResponse, address, payload, now_ms), now_ms)


def mode_update(
    mode: str,
    now_ms: int = NOW_MS,
    *,
    scope: tuple[str, str] = KITCHEN,
    lives_ms: int = 60_000,
) -> Accepted:
    """A mode as the hypothalamus sets it."""
    mint = Mint("hypothalamus", "consumer", seed=next(_SEEDS), boot=1)
    payload = GlobalModeUpdatePayload(mode=mode, reason="a test")
    publish = mint.full(
        GlobalModeUpdate, topics.mode(*scope), payload, now_ms,
        expires_at=timestamp(now_ms + lives_ms),
    )  # fmt: skip
    return judged(publish, now_ms)


def parameter(
    value: Any,
    version: int = 1,
    now_ms: int = NOW_MS,
    *,
    name: str = "brainstem.window_ms",
    scope: tuple[str, str] = KITCHEN,
    lives_ms: int = 60_000,
) -> Accepted:
    """A parameter as a controller broadcasts it."""
    mint = Mint("tuner", "consumer", seed=next(_SEEDS), boot=1)
    payload = ParameterUpdatePayload(name=name, value=value, version=version)
    publish = mint.full(
        ParameterUpdate, topics.global_parameters(*scope), payload, now_ms,
        expires_at=timestamp(now_ms + lives_ms),
    )  # fmt: skip
    return judged(publish, now_ms)
