"""The demo's own parts: each joins as any foreign part would, by certificate and contracts."""

import time
from collections.abc import Mapping
from typing import Any, Final

from nervus.bus import BrokerAddress, Filter, Session
from nervus.demo.attention import GateView, LevelView
from nervus.demo.house import BOARDS
from nervus.demo.tally import CommandView, Tally
from nervus.wire import Accepted, Guard, Mint, Packet, encode, topics, unix_ms
from nervus.wire.contracts import (
    CommandRequest,
    CommandRequestPayload,
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
    ModulatorSignal,
    ModulatorSignalPayload,
    Target,
)
from nervus.wire.effects import Publish
from nervus.wire.times import timestamp
from nervus.wire.topic import TopicSpec

CONSUMER: Final = "demo"
OBSERVER: Final = "demo-observer"
DIAGNOSTICS: Final = "demo-diagnostics"
MODULATOR: Final = "demo-modulator"
HYPOTHALAMUS: Final = "demo-hypothalamus"
ROLES: Final = {
    CONSUMER: "consumer",
    OBSERVER: "observer",
    DIAGNOSTICS: "diagnostics",
    MODULATOR: "modulator",
    HYPOTHALAMUS: "hypothalamus",
}

DEADLINE_MS: Final = 5_000
REPEAT_S: Final = 1.0
OUTCOME_GRACE_S: Final = 5.0


class Clock:
    """Seconds since the demo began, and unix milliseconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def restart(self) -> None:
        """Count seconds from now."""
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    @staticmethod
    def unix_ms() -> int:
        """Wall time."""
        return time.time_ns() // 1_000_000


class Part:
    """One identity on one broker, with a guard before everything it takes in."""

    specs: tuple[TopicSpec, ...] = ()

    def __init__(
        self, identity: str, broker: Any, address: BrokerAddress, tally: Tally, clock: Clock
    ) -> None:
        self.tally = tally
        self.clock = clock
        self.mint = Mint(identity, "consumer", seed=time.time_ns(), boot=int(time.time()))
        self.session = Session(
            identity,
            broker,
            address,
            filters=[Filter(spec.filter(), spec.critical_qos) for spec in self.specs],
            on_packet=self._on_packet,
        )
        self._guard = Guard(self.specs)

    async def send(self, publish: Publish) -> None:
        """Publish one message; raises what the session raises."""
        await self.session.publish(
            publish.address.topic,
            encode(publish.message),
            qos=publish.qos,
            retain=publish.address.spec.retained,
            expiry_ms=publish.expiry_ms,
        )

    def take(self, accepted: Accepted) -> None:
        """Take a message that passed the guard; a part without subscriptions gets none."""

    async def _on_packet(self, packet: Packet) -> None:
        verdict = self._guard.judge(packet, self.clock.unix_ms())
        if isinstance(verdict, Accepted):
            self.take(verdict)


class Consumer(Part):
    """Reads what passed the gate, asks for actions, and waits for their one outcome each."""

    specs = (topics.GATED_RELAY, topics.ACTION_PROGRESS, topics.OUTCOME, topics.ERROR_EVENT)

    def __init__(self, address: BrokerAddress, tally: Tally, clock: Clock) -> None:
        super().__init__(CONSUMER, "core", address, tally, clock)
        self._edges: dict[tuple[str, str], tuple[bool, int]] = {}
        self._requests: dict[str, Publish] = {}

    def expect(self, device_id: str, sensor: str, *, value: bool, set_ns: int) -> None:
        """Remember when an input was set, to time its way up."""
        self._edges[device_id, sensor] = (value, set_ns)

    async def request(
        self,
        room: str,
        device_id: str,
        actuator: str,
        capability: str,
        arguments: Mapping[str, Any],
    ) -> None:
        """Ask for an action."""
        now_ms = self.clock.unix_ms()
        action_id = self.mint.id(now_ms)
        publish = self.mint.full(
            CommandRequest,
            topics.command_request("room", room, CONSUMER, action_id),
            CommandRequestPayload(
                capability=capability,
                target=Target(device_id=device_id, actuator=actuator),
                arguments=dict(arguments),
            ),
            now_ms,
            action_id=action_id,
            deadline_ms=DEADLINE_MS,
        )
        shown = " ".join(f"{value}" for value in arguments.values())
        self.tally.commands[action_id] = CommandView(
            action_id,
            f"{actuator} {shown}",
            self.clock.seconds(),
            # a pulse has its outcome when it ends: that tells nothing of the way
            timed=capability != "actuator.pulse",
        )
        self._requests[action_id] = publish
        await self.send(publish)

    async def repeat_unanswered(self) -> None:
        """Ask again, with the same action_id, until accepted; and past the deadline for the end."""
        now_s = self.clock.seconds()
        for view in self.tally.open_commands():
            age_s = now_s - view.asked_s
            overdue = age_s > DEADLINE_MS / 1000 + OUTCOME_GRACE_S
            if (not view.accepted and age_s > REPEAT_S) or overdue:
                await self.send(self._again(self._requests[view.action_id]))

    def take(self, accepted: Accepted) -> None:
        """Sort what came by its topic."""
        spec, message = accepted.address.spec, accepted.message
        if spec is topics.GATED_RELAY:
            self._relayed(message.payload)
            return
        view = self.tally.commands.get(message.meta.action_id)
        if view is None:
            return
        if spec is topics.ACTION_PROGRESS:
            view.accepted = True
        elif spec is topics.ERROR_EVENT:
            view.error = message.payload.error.code
        elif view.outcome is not None:
            self.tally.outcomes_twice += 1
        else:
            view.outcome = message.payload.status
            view.took_ms = (self.clock.seconds() - view.asked_s) * 1000
            if message.errors:
                view.error = message.errors[0].code
            if view.timed:
                self.tally.outcome_ms.add(view.took_ms)

    def _relayed(self, bundle: Any) -> None:
        self.tally.relayed.add(self.clock.seconds())
        for feature in bundle.summary_features:
            if feature.device_id is None:
                continue
            board = self.tally.boards.get(feature.device_id)
            if board is not None and feature.last is not None:
                board.value(feature.sensor_type, feature.last)
            edge = self._edges.get((feature.device_id, feature.sensor_type))
            if edge is not None and edge[0] == feature.last:
                del self._edges[feature.device_id, feature.sensor_type]
                self.tally.relay_ms.add((time.time_ns() - edge[1]) / 1e6)

    def _again(self, publish: Publish) -> Publish:
        now_ms = self.clock.unix_ms()
        meta = publish.message.meta
        left_ms = max(1, unix_ms(meta.produced_at) + DEADLINE_MS - now_ms)
        return self.mint.full(
            CommandRequest,
            publish.address,
            publish.message.payload,
            now_ms,
            action_id=meta.action_id,
            deadline_ms=left_ms,
        )


class Observer(Part):
    """Reads states and the gate's decisions, on either broker."""

    _SPINAL = (topics.DEVICE_STATUS, topics.REFLEX_STATE)
    _CORE = (
        topics.GATE_STATE,
        topics.ROUTE_DECISION,
        topics.GLOBAL_ALERT,
        topics.GLOBAL_AROUSAL,
    )

    def __init__(self, broker: str, address: BrokerAddress, tally: Tally, clock: Clock) -> None:
        self.specs = self._SPINAL if broker == "spinal" else self._CORE
        super().__init__(OBSERVER, broker, address, tally, clock)

    def take(self, accepted: Accepted) -> None:
        """Sort what came by its topic."""
        spec, payload = accepted.address.spec, accepted.message.payload
        levels = accepted.address.levels
        now_s, left_s = self.clock.seconds(), (accepted.left_ms or 0) / 1000
        if spec is topics.ROUTE_DECISION:
            self.tally.attention.decided(now_s, payload)
        elif spec is topics.GATE_STATE:
            gate = GateView(payload.inhibition, payload.mode, now_s + left_s)
            self.tally.attention.gated(now_s, levels["scope"], payload.target_id, gate)
        elif spec is topics.GLOBAL_ALERT or spec is topics.GLOBAL_AROUSAL:
            name = "alert" if spec is topics.GLOBAL_ALERT else "arousal"
            level = LevelView(payload.state, payload.level, payload.half_life_ms, now_s)
            self.tally.attention.told(f"{levels['scope']} {name}", level)
        elif levels["device_id"] not in {board.device_id for board in BOARDS}:
            return
        elif spec is topics.DEVICE_STATUS:
            self.tally.boards[levels["device_id"]].status = payload.status
        else:
            self.tally.boards[levels["device_id"]].fires[levels["reflex_id"]] = payload.fires


class Diagnostics(Part):
    """Counts what brainstem sends up, before the gate."""

    specs = (topics.RELAY_BUNDLE,)

    def __init__(self, address: BrokerAddress, tally: Tally, clock: Clock) -> None:
        super().__init__(DIAGNOSTICS, "core", address, tally, clock)

    def take(self, accepted: Accepted) -> None:
        """Count the bundle and the afferents it stands for."""
        now_s = self.clock.seconds()
        self.tally.bundles.add(now_s)
        features = accepted.message.payload.summary_features
        self.tally.afferents.add(now_s, sum(feature.count for feature in features))


class Modulator(Part):
    """Proposes attention; what comes of it the gatekeeper decides."""

    def __init__(self, address: BrokerAddress, tally: Tally, clock: Clock) -> None:
        super().__init__(MODULATOR, "core", address, tally, clock)

    async def shut(self, room: str, channel: str, hold_ms: int) -> None:
        """Propose to let nothing of a room's channel rise for `hold_ms`."""
        await self._propose(room, channel, hold_ms, intent="set_inhibition", inhibition=1)

    async def suppress(self, room: str, channel: str, strength: float, hold_ms: int) -> None:
        """Propose to attend less to a room's channel; it fades to nothing in `hold_ms`."""
        await self._propose(room, channel, hold_ms, intent="suppress", strength=strength)

    async def _propose(self, room: str, channel: str, hold_ms: int, **what: Any) -> None:
        payload = ModulatorSignalPayload(target_kind="channel", target_id=channel, **what)
        address = topics.modulator_signal("room", room, "channel", channel)
        now_ms = self.clock.unix_ms()
        await self.send(self.mint.full(ModulatorSignal, address, payload, now_ms, ttl_ms=hold_ms))


class Hypothalamus(Part):
    """Sets the mode of a room for a while."""

    def __init__(self, address: BrokerAddress, tally: Tally, clock: Clock) -> None:
        super().__init__(HYPOTHALAMUS, "core", address, tally, clock)

    async def set_mode(self, room: str, mode: str, hold_ms: int) -> None:
        """Set it for `hold_ms`."""
        now_ms = self.clock.unix_ms()
        payload = GlobalModeUpdatePayload(mode=mode, reason="the demo shows what a mode does")
        until = timestamp(now_ms + hold_ms)
        await self.send(
            self.mint.full(
                GlobalModeUpdate, topics.mode("room", room), payload, now_ms, expires_at=until
            )
        )
