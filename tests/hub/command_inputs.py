"""The command planes in a box: both cores over their real tables, with time and crashes by hand."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nervus.policy import Policy, PolicySettings, RegimeChanged, announcements, audit, parse
from nervus.policy.raw import OpenRaw
from nervus.policy.record import Announce, AppendAudit
from nervus.policy.service import STORE_SCHEMA
from nervus.reliable import (
    Action,
    Committed,
    Desired,
    Grants,
    Published,
    Reliable,
    ReliableSettings,
    schema,
)
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, Rejected, encode, topics
from nervus.wire.contracts import (
    Capability,
    CommandRequest,
    CommandRequestPayload,
    DeviceInfo,
    DeviceInfoPayload,
    DeviceStatus,
    DeviceStatusPayload,
    EfferentReport,
    EfferentReportPayload,
    Outcome,
    Ping,
    PingPayload,
    ReflexFire,
    ReflexFirePayload,
    ReflexReport,
    ReflexReportPayload,
    ReflexState,
    ReflexStatePayload,
    Target,
)
from nervus.wire.ids import MessageIds

NOW_MS = 1_790_000_000_000

POLICY = """
version = 3

[[rule]]
id = "operators"
effect = "allow"
principals = ["operator*"]
capabilities = ["*"]
targets = ["*/*"]
limits = { value = { min = 0, max = 50 } }
reason = "more than 50 J breaks the lamp"

[[rule]]
id = "pulses"
effect = "allow"
principals = ["operator*"]
capabilities = ["actuator.pulse"]
targets = ["*/*"]

[[rule]]
id = "not-the-door"
effect = "deny"
principals = ["*"]
capabilities = ["*"]
targets = ["*/door"]
reason = "the door is for hands"
"""

GRANTS = {"b1": ("room", "kitchen"), "b2": ("room", "hall")}

_ids = MessageIds(99)


def action_id(now_ms: int = NOW_MS) -> str:
    """A fresh action id."""
    return _ids.next(now_ms)


def judged(publish: Publish, now_ms: int) -> Accepted:
    """What a receiver's guard makes of a message; fails unless it is accepted."""
    spec = publish.address.spec
    packet = Packet(publish.on, publish.address.topic, encode(publish.message), spec.retained)  # type: ignore[arg-type]
    verdict = Guard([spec]).judge(packet, now_ms)
    assert isinstance(verdict, Accepted), verdict
    return verdict


class Board:
    """Writes the messages of one board."""

    def __init__(self, device_id: str, boot: int = 1) -> None:
        self.device_id = device_id
        self.mint = Mint(f"device:{device_id}", "spinal", seed=hash((device_id, boot)), boot=boot)
        self.session = self.mint.id(NOW_MS)

    def status(self, text: Any, now_ms: int, session: str | None = None) -> Accepted:
        payload = DeviceStatusPayload(status=text, session=session or self.session)
        address = topics.device_status(self.device_id)
        return judged(self.mint.compact(DeviceStatus, address, payload, now_ms), now_ms)

    def info(self, now_ms: int, *actuators: str) -> Accepted:
        payload = DeviceInfoPayload(
            board="virtual",
            firmware="0-1",
            versions=["v1"],
            capabilities=[
                Capability(id="temperature", kind="sensor"),
                *(Capability(id=name, kind="actuator") for name in actuators),
            ],
        )
        address = topics.device_info(self.device_id)
        return judged(self.mint.compact(DeviceInfo, address, payload, now_ms), now_ms)

    def report(self, action: str, status: Any, now_ms: int, **fields: Any) -> Accepted:
        payload = EfferentReportPayload(status=status, **fields)
        address = topics.efferent_report("room", "kitchen", "lamp", self.device_id, action)
        return judged(
            self.mint.compact(EfferentReport, address, payload, now_ms, action_id=action), now_ms
        )

    def ping(self, now_ms: int, nonce: int = 7) -> Accepted:
        payload = PingPayload(nonce=nonce, t0=123)
        address = topics.ping(self.device_id)
        return judged(self.mint.compact(Ping, address, payload, now_ms), now_ms)

    def reflex_state(self, reflex_id: str, rule_hash: str, now_ms: int) -> Accepted:
        payload = ReflexStatePayload(
            version=1, hash=rule_hash, enabled=True, mode="active", fires=0
        )
        address = topics.reflex_state(self.device_id, reflex_id)
        return judged(self.mint.compact(ReflexState, address, payload, now_ms), now_ms)

    def reflex_fire(self, reflex_id: str, now_ms: int) -> Accepted:
        action = self.mint.id(now_ms)
        payload = ReflexFirePayload(version=1, inputs={"motion": True}, actions=[], dry_run=False)
        address = topics.reflex_fire(self.device_id, reflex_id, action)
        return judged(
            self.mint.compact(ReflexFire, address, payload, now_ms, action_id=action), now_ms
        )

    def reflex_report(
        self, reflex_id: str, action: str, status: Any, now_ms: int, **fields: Any
    ) -> Accepted:
        payload = ReflexReportPayload(version=1, status=status, **fields)
        address = topics.reflex_report(self.device_id, reflex_id, action)
        return judged(
            self.mint.compact(ReflexReport, address, payload, now_ms, action_id=action), now_ms
        )


@dataclass(frozen=True)
class Ask:
    """A command request, before it is put into an envelope."""

    action: str
    device: str = "b1"
    actuator: str = "lamp"
    capability: str = "actuator.set"
    arguments: tuple[tuple[str, Any], ...] = (("value", 1),)
    offline: Any = None
    deadline_ms: int = 10_000
    identity: str = "operator"
    claimed: str | None = None
    scope: str = "kitchen"
    priority: str = "normal"
    parent: str | None = None

    def sent(self, now_ms: int, mint: Mint) -> Publish:
        payload = CommandRequestPayload(
            capability=self.capability,
            target=Target(device_id=self.device, actuator=self.actuator),
            arguments=dict(self.arguments),
            offline=self.offline,
        )
        address = topics.command_request("room", self.scope, self.identity, self.action)
        extra = {"principal": self.claimed} if self.claimed else {}
        extra["priority"] = self.priority
        if self.parent:
            extra["parent_id"] = self.parent
        return mint.full(
            CommandRequest,
            address,
            payload,
            now_ms,
            action_id=self.action,
            deadline_ms=self.deadline_ms,
            **extra,
        )


class World:
    """Both cores, their tables, and everything that was published."""

    def __init__(self, policy: str = POLICY, **settings: Any) -> None:
        self.now_ms = NOW_MS
        self.policy_text = policy
        self.settings = ReliableSettings(**settings)
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript("".join(STORE_SCHEMA))
        self.published: list[tuple[int, Publish]] = []
        self.rejected: list[Rejected] = []
        self.held: list[list[Any]] | None = None
        self.starts = 0
        self._mints: dict[str, Mint] = {}
        self.start()

    def start(self, grants: dict[str, tuple[str, str]] | None = None) -> None:
        """A process starts over what is stored."""
        self.starts += 1
        seed = 1_000 * self.starts
        self.reliable = Reliable(
            self.settings, Mint("reliable", "reliable", seed=seed, boot=self.starts)
        )
        mint = Mint("policy", "policy", seed=seed + 1, boot=self.starts)
        self.policy = Policy(PolicySettings(), mint, self.reliable)
        self.apply(self.reliable.restore(schema.read(self.database), self.now_ms))
        self.apply(self.policy.step(RegimeChanged(self.regime), self.now_ms))
        self.step(Grants(GRANTS if grants is None else grants))

    @property
    def regime(self) -> Any:
        return parse(self.policy_text.encode(), "policy.toml")

    def ask(self, ask: Ask, mode: str = "live") -> list[Any]:
        mint = self._mints.setdefault(
            ask.identity, Mint(ask.identity, "consumer", seed=len(self._mints), boot=1)
        )
        event = judged(ask.sent(self.now_ms, mint), self.now_ms)
        return self.apply(self.policy.step(event, self.now_ms), mode)

    def step(self, event: Any, mode: str = "live") -> list[Any]:
        return self.apply(self.reliable.step(event, self.now_ms), mode)

    def tick(self, ms: int = 0, mode: str = "live") -> list[Any]:
        self.now_ms += ms
        return self.apply(self.reliable.tick(self.now_ms), mode)

    def apply(self, effects: Sequence[Any], mode: str = "live") -> list[Any]:
        """Commit, then publish. Mode "before" dies before the commit, "after" right behind it."""
        if self.held is not None:
            self.held.append(list(effects))
            return []
        if mode == "before":
            self.start()
            return []
        handed = [each for each in effects if isinstance(each, Committed)]
        records = [each.record for each in effects if isinstance(each, AppendAudit)]
        other = (Publish, Rejected, Committed, AppendAudit, Announce, OpenRaw)
        announced = [each for each in effects if isinstance(each, Announce)]
        self.database.execute("BEGIN")
        audit.append(self.database, records)
        announcements.append(self.database, announced)
        schema.write(self.database, [each for each in effects if not isinstance(each, other)])
        self.database.execute("COMMIT")
        if mode == "after":
            self.start()
            return []
        self.rejected += [each for each in effects if isinstance(each, Rejected)]
        self.published += [(self.now_ms, each) for each in effects if isinstance(each, Publish)]
        for event in handed:
            self.apply(self.reliable.step(event, self.now_ms))
        return list(effects)

    def hold(self) -> None:
        """Let commits wait, as on a slow disk."""
        self.held = []

    def release(self) -> list[list[Any]]:
        """Let the commits that waited happen, in order; returns their effects."""
        assert self.held is not None
        held, self.held = self.held, None
        for effects in held:
            self.apply(effects)
        return held

    def sent(self, name: str, action: str | None = None) -> list[Publish]:
        """What was published on a topic, about one action if it is given."""
        return [
            publish
            for _, publish in self.published
            if publish.address.spec.name == name
            and action in (None, publish.address.levels.get("action_id"))
        ]

    def outcomes(self, action: str) -> list[Outcome]:
        return [publish.message for publish in self.sent("outcome", action)]  # type: ignore[misc]

    def outcome(self, action: str) -> Outcome:
        """The one outcome of an action; fails if there is none, or another."""
        found = self.outcomes(action)
        assert len({encode(each) for each in found}) == 1, found
        return found[0]

    def stages(self, action: str) -> list[str]:
        return [each.message.payload.stage for each in self.sent("action_progress", action)]

    def confirm(self, messages: Iterable[Outcome]) -> None:
        for message in messages:
            self.step(Published(message.meta.message_id))

    def stored(self) -> dict[str, Action]:
        return {action.action_id: action for action in schema.read(self.database)}

    def audit(self) -> list[dict[str, Any]]:
        names = [column[1] for column in self.database.execute("PRAGMA table_info(audit)")]
        rows = self.database.execute("SELECT * FROM audit ORDER BY sequence")
        return [dict(zip(names, row, strict=True)) for row in rows]


def reflexes(**rules: Any) -> Desired:
    """Desired reflexes of board b1 by reflex id."""
    return Desired({("b1", name): rule for name, rule in rules.items()})


def by_action(publishes: Iterable[Publish]) -> dict[str, list[Publish]]:
    found: dict[str, list[Publish]] = defaultdict(list)
    for publish in publishes:
        found[publish.address.levels["action_id"]].append(publish)
    return found
