"""The one I/O loop of a plane: sessions, guard, core, store and reject lane around one task."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Never

from nervus.bus.batch import Batch, ShellCounters, Unacknowledged
from nervus.bus.batch import durable as made_durable
from nervus.bus.clock import Clock
from nervus.bus.errors import OfferTimeoutError, PublishDeniedError, PublishError
from nervus.bus.failure import first_failure
from nervus.bus.journal import Recorder
from nervus.bus.ledger import Ledger, Ownership, Retained
from nervus.bus.machine import TICK_MS, Core
from nervus.bus.memory import Memory
from nervus.bus.outbox import Done, Outgoing
from nervus.bus.reject_log import RejectLog
from nervus.bus.session import Delivery, OnTrouble, Session
from nervus.store import Store
from nervus.wire import (
    Accepted,
    Connected,
    Guard,
    Hold,
    Packet,
    Publish,
    Rejected,
    RejectLane,
    Release,
    denied,
    queue_full,
)
from nervus.wire.verdict import Verdict

_LOG: Final = logging.getLogger(__name__)
_SLICE_S: Final = 0.001
_TOGETHER: Final = 16

Commit = Callable[[Sequence[Any]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class _Offer:
    event: Any


class Shell:
    """Runs a core: one task steps it, so it never sees two events at once.

    A packet is judged, stepped, its effects committed, then published, then acknowledged once the
    broker has what it caused at QoS 1; in this order, and each in the order of the packets. One
    that the core holds is acknowledged as soon as that of a later step is out: half of what a
    session may have unacknowledged at most, the rest at once (`counters.unheld`). Commits
    overlap: the next packet is stepped while the last one is written, so that a store can group
    them. Any exception of core, commit or session ends `run`: whoever supervises the process starts
    it anew from its store.

    Args:
        core: What is run.
        sessions: One for each broker; the shell attaches itself to them.
        guard: Judges every packet.
        lane: Turns rejects into events for reflect.
        commit: Makes effects other than Publish and Rejected durable; called once for each step
            that has some, in order, and awaited before anything of that step is published.
        confirmed: Called when the broker has a QoS 1 message, with the effect it came from.
        journal: Records every input, and a digest of what came of it.
        store: Keeps the ledger of retained states and this part's rejects; its schema includes
            `KEPT`. Without one neither survives the process.
        ownership: Which retained states are ours, where several parts take turns.
        memory: What it is told and has to know again after a restart.
        clock: Unix milliseconds; may jump, the core's time does not run backwards. Set back by more
            than `CLOCK_BACK_MS` it ends the shell.
    """

    inbox_limit: ClassVar[int] = 8_192
    """Packets or events not yet stepped; beyond it QoS 0 is dropped as queue_full."""

    commit_limit: ClassVar[int] = 1_024
    """Steps not yet committed; beyond it no further packet is stepped."""

    def __init__(  # noqa: PLR0913 - here everything meets
        self,
        core: Core,
        sessions: Sequence[Session],
        guard: Guard,
        lane: RejectLane,
        *,
        commit: Commit | None = None,
        confirmed: Callable[[Publish], None] | None = None,
        journal: Recorder | None = None,
        store: Store | None = None,
        ownership: Ownership | None = None,
        memory: Memory | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.counters = ShellCounters()
        self._core = core
        self._sessions: dict[str, Session] = {session.broker: session for session in sessions}
        self._guard = guard
        self._lane = lane
        self._commit = commit
        self._confirmed = confirmed
        self._journal = journal
        self._memory = memory
        self._arrived = asyncio.Event()
        self._clock = Clock(clock, self._arrived.set)
        self._time = self._clock.now_ms
        self.ledger: Ledger | None = None
        self.reject_log: RejectLog | None = None
        if store is not None:
            part = sessions[0].identity
            self.ledger = Ledger(store, part, self._retain, self._time, ownership)
            self.reject_log = RejectLog(store, part, partial(self._post, heard=True), self._time)
        places = min(session.receive_maximum for session in sessions)
        self._unacknowledged = Unacknowledged(places // 2, self.counters)
        self._together = 1
        self._ticked_ms = 0
        self._urgent: deque[Delivery | Connected | _Offer] = deque()
        self._bulk: deque[Delivery] = deque()
        self._room = asyncio.Event()
        self._uncommitted: asyncio.Queue[Batch] = asyncio.Queue()
        self._committing = 0
        self._committed = asyncio.Event()
        for session in sessions:
            told = partial(self._connected, Connected(session.broker))
            session.attach(self._receive, told, self._take_at_once)

    def begin(self, event: Any) -> None:
        """Step an event before `run`: what comes of it is committed, and published once it runs."""
        self._step(event, self._time())

    async def offer(self, event: Any, *, deadline_s: float = 5.0) -> None:
        """Give the core an event that did not come by MQTT; it is stepped before bulk packets.

        Raises:
            OfferTimeoutError: The inbox stayed full for `deadline_s`.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while len(self._urgent) >= self.inbox_limit:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError as error:
            raise OfferTimeoutError(
                f"the inbox stayed full for {deadline_s:g} s",
                where=type(event).__name__,
                hint="the plane is overloaded",
            ) from error
        self._urgent.append(_Offer(event))
        self._arrived.set()

    async def run(
        self, on_ready: Callable[[], None] | None = None, on_trouble: OnTrouble | None = None
    ) -> Never:
        """Run until cancelled.

        Args:
            on_ready: Called once every session is subscribed.
            on_trouble: Told what each session suffers from, as that changes.

        Raises:
            Exception: Whatever ended a session, the core or a commit.
        """
        for session in self._sessions.values():
            session.tell_trouble(on_trouble)
        try:
            await self._recall()
            async with asyncio.TaskGroup() as tasks:
                if self.ledger is not None and self.reject_log is not None:
                    tasks.create_task(self.ledger.run(), name="ledger")
                    tasks.create_task(self.reject_log.run(), name="rejects")
                for session in self._sessions.values():
                    tasks.create_task(session.run(), name=f"session {session.broker}")
                tasks.create_task(self._consume(), name="core")
                tasks.create_task(self._publish_committed(), name="publisher")
                if on_ready is not None:
                    tasks.create_task(self._tell_ready(on_ready), name="readiness")
        except BaseExceptionGroup as group:
            raise first_failure(group) from group
        finally:
            self._clock.stop()
            for session in self._sessions.values():
                session.tell_trouble(None)
        raise AssertionError("a shell ends by cancellation or by an error")

    async def _recall(self) -> None:
        """Take up what the process before this one left in the store."""
        if self.ledger is not None and self.reject_log is not None:
            await self.ledger.load()
            await self.reject_log.load()
        if self._memory is not None:
            now_ms = self._time()
            for packet in await self._memory.load(now_ms):
                self._step_packet(packet, self._guard.judge(packet, now_ms), now_ms, None)

    async def _tell_ready(self, on_ready: Callable[[], None]) -> None:
        for session in self._sessions.values():
            await session.wait_connected()
        on_ready()

    async def _connected(self, event: Connected) -> None:
        self._urgent.append(event)
        self._arrived.set()

    def _receive(self, delivery: Delivery) -> None:
        self.counters.packets += 1
        if delivery.qos:
            # Bounded by the session's receive maximum.
            self._urgent.append(delivery)
        elif len(self._bulk) < self.inbox_limit:
            self._bulk.append(delivery)
        else:
            self.counters.dropped += 1
            self._reject_own(queue_full(delivery.packet))

    def _take_at_once(self) -> None:
        """Take what a read brought in the turn it came in; what is too much for it waits."""
        if self._urgent or self._bulk:
            self._take_some()
        if self._urgent or self._bulk:
            self._arrived.set()
        elif self._core.due_ms < self._clock.rings_ms:
            self._rest()

    async def _consume(self) -> Never:
        while True:
            self._rest()
            await self._arrived.wait()
            self._arrived.clear()
            await self._drain()
            self._clock.check()
            self._tick_if_due(self._time())

    def _rest(self) -> None:
        """Wake `_consume` when something is due; a timeout of its own would cost each packet."""
        due_ms = self._due_ms()
        self._clock.ring_by(due_ms if self.ledger is None else min(due_ms, self.ledger.due_ms))

    def _due_ms(self) -> int:
        return max(min(self._core.due_ms, self._lane.due_ms), self._ticked_ms + TICK_MS)

    async def _drain(self) -> None:
        while self._urgent or self._bulk:
            while self._committing >= self.commit_limit:
                self._committed.clear()
                await self._committed.wait()
            self._take_some()
            if self._urgent or self._bulk:
                self._tick_if_due(self._time())
                # Between slices sockets are read and written: no flood starves them, and what
                # control caused is gone before content is looked at.
                await asyncio.sleep(0)

    def _take_some(self) -> None:
        """Take from one queue, for no longer than control may have to wait for it."""
        queue: deque[Any] = self._urgent or self._bulk
        now_ms = self._time()
        began = at = time.monotonic()
        while queue and at < began + _SLICE_S and self._committing < self.commit_limit:
            self._take(queue, min(self._together, self.commit_limit - self._committing), now_ms)
            before, at = at, time.monotonic()
            if at - before > _SLICE_S / 2:
                self._together = max(1, self._together // 2)
            elif self._journal is None:  # which has next to each packet what the guard asked for it
                self._together = min(_TOGETHER, 2 * self._together)
        self._room.set()

    def _tick_if_due(self, now_ms: int) -> None:
        if self.ledger is not None:
            self.ledger.tick(now_ms)
        if now_ms < self._due_ms():
            return
        self._ticked_ms = now_ms
        if self._journal is not None:
            self._journal.tick(now_ms)
        self._apply(self._core.tick(now_ms), now_ms, None)
        self._tell(self._lane.tick(now_ms))

    def _take(self, queue: deque[Any], most: int, now_ms: int) -> None:
        """Take so many at most: judge all their packets, then step each.

        The guard asks nothing of the core, so the same comes of it as one by one, in a fifth less
        time: code and data of either stay in the processor's caches.
        """
        judge = self._guard.judge
        taken: list[tuple[Delivery | Connected | _Offer, Verdict | None]] = []
        for _ in range(min(most, len(queue))):
            item = queue.popleft()
            taken.append((item, judge(item[0], now_ms) if type(item) is Delivery else None))
        for item, verdict in taken:
            if type(item) is Delivery and verdict is not None:
                self._step_packet(item[0], verdict, now_ms, item)
            elif isinstance(item, Connected):
                if self.ledger is not None and self.reject_log is not None:
                    self.ledger.connected(item.broker, now_ms)
                    self.reject_log.connected(item.broker)
                self._step(item, now_ms)
            elif isinstance(item, _Offer):
                self._step(item.event, now_ms)

    def _step_packet(
        self, packet: Packet, verdict: Verdict, now_ms: int, delivery: Delivery | None
    ) -> None:
        if self._journal is not None:
            # After what the guard was told for it, before what comes of it.
            self._journal.packet(now_ms, packet)
        if type(verdict) is Rejected:
            self._reject(verdict, now_ms)
            # In its turn: it may be the copy of one that is not committed yet, or not out.
            if delivery is None or not delivery.qos or not self._unacknowledged.renew(delivery):
                self._apply((), now_ms, delivery)
            return
        self.counters.steps += 1
        effects = self._core.step(verdict, now_ms)
        keeping = None
        if self._memory is not None and delivery is not None and isinstance(verdict, Accepted):
            key = self._memory.key(verdict, now_ms)
            if key is not None:
                keeping = partial(self._memory.keep, key, packet, now_ms)
        self._apply(effects, now_ms, delivery, keeping)

    def _step(self, event: Any, now_ms: int) -> None:
        if self._journal is not None:
            self._journal.event(now_ms, event)
        self.counters.steps += 1
        self._apply(self._core.step(event, now_ms), now_ms, None)

    def _apply(
        self,
        effects: Sequence[Any],
        now_ms: int,
        delivery: Delivery | None,
        keeping: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        if not effects and not self._committing and keeping is None:
            # Most packets: taken into a window, and nothing before them waits for its commit.
            if delivery is not None and delivery.qos:
                delivery.acknowledge()
            return
        batch = self._begin(effects, now_ms, delivery, keeping)
        if batch.commit is None and not self._committing:
            self._finish(batch)
        elif batch.commit is not None or batch.publishes or batch.delivery or batch.released:
            self._committing += 1
            self._uncommitted.put_nowait(batch)

    def _begin(
        self,
        effects: Sequence[Any],
        now_ms: int,
        delivery: Delivery | None,
        keeping: Callable[[], Awaitable[object]] | None,
    ) -> Batch:
        publishes: list[Publish] = []
        durable: list[Any] = []
        states: list[Retained] = []
        released: list[Packet] = []
        for effect in effects:
            if self._journal is not None and not isinstance(effect, Rejected):
                self._journal.output(effect)
            if isinstance(effect, Publish):
                if self._record(effect, states):
                    publishes.append(effect)
            elif isinstance(effect, Rejected):
                self._reject(effect, now_ms)
            elif isinstance(effect, Hold | Release):
                delivery = self._unacknowledged.take(effect, delivery, released)
            else:
                durable.append(effect)
        commit = self._start_commit(durable, states, keeping)
        return Batch(commit, tuple(publishes), delivery, released)

    def _record(self, publish: Publish, states: list[Retained]) -> bool:
        """Note a state for the ledger; returns whether the message may be published."""
        if self.ledger is None or not publish.address.spec.retained:
            return True
        state = Retained.of(publish, self._expires_ms(publish))
        if not self.ledger.admits(state):
            _LOG.error("%s: not published, the ledger of states is full", state.topic)
            self.counters.unpublished += 1
            return False
        states.append(state)
        return True

    def _start_commit(
        self,
        durable: Sequence[Any],
        states: Sequence[Retained],
        keeping: Callable[[], Awaitable[object]] | None,
    ) -> asyncio.Future[Collection[str]] | None:
        works = [] if keeping is None else [keeping]
        if durable:
            if self._commit is None:
                raise TypeError(f"{type(durable[0]).__name__} is an effect that nobody commits")
            self.counters.commits += 1
            works.append(partial(self._commit, durable))
        record = partial(self.ledger.record, states) if states and self.ledger is not None else None
        return asyncio.ensure_future(made_durable(works, record)) if works or record else None

    async def _publish_committed(self) -> Never:
        while True:
            batch = await self._uncommitted.get()
            self._finish(batch, () if batch.commit is None else await batch.commit)
            self._committing -= 1
            self._committed.set()

    def _finish(self, batch: Batch, lost: Collection[str] = ()) -> None:
        publishes, delivery = batch.publishes, batch.delivery
        if lost:
            _LOG.warning("not published, another has taken over: %s", ", ".join(sorted(lost)))
            publishes = tuple(one for one in publishes if one.address.topic not in lost)
            self.counters.unpublished += len(batch.publishes) - len(publishes)
        if delivery is not None and not delivery.qos:
            delivery = None
        sure = 0
        if delivery is not None or batch.released:
            sure = sum(one.qos > 0 for one in publishes)
        told = self._unacknowledged.until(sure, delivery, batch.released) if sure else None
        for publish in publishes:
            self._post(publish, told if publish.qos else None)
        if told is None:
            self._unacknowledged.settle(batch.released)
            if delivery is not None:
                delivery.acknowledge()

    def _reject(self, rejected: Rejected, now_ms: int) -> None:
        self.counters.rejected += 1
        self._tell(self._lane.step(rejected, now_ms))

    def _reject_own(self, rejected: Rejected) -> None:
        """Reject outside of any step: the lane shares the core's mint, so it is an input too."""
        now_ms = self._time()
        if self._journal is not None:
            self._journal.refused(now_ms, rejected)
        self._reject(rejected, now_ms)

    def _tell(self, publishes: Sequence[Publish]) -> None:
        for publish in publishes:
            if self._journal is not None:
                self._journal.output(publish)
            if self.reject_log is None:
                self._post(publish)
            else:
                self.reject_log.add(publish)

    def _retain(self, state: Retained, done: Done) -> None:
        session = self._sessions.get(state.broker)
        if session is None:
            done(PublishError(f"no session on the {state.broker} broker", where=state.topic))
            return
        session.post(
            Outgoing(
                state.topic, state.payload, qos=1, retain=True,
                priority=state.priority, expires_ms=state.expires_ms, done=done,
            )
        )  # fmt: skip

    def _expires_ms(self, publish: Publish) -> int | None:
        return None if publish.expiry_ms is None else self._time() + publish.expiry_ms

    def _post(self, publish: Publish, done: Done | None = None, *, heard: bool = False) -> None:
        session = self._sessions.get(publish.on)
        if session is None:
            raise TypeError(f"{publish.address.topic}: no session on the {publish.on} broker")
        self.counters.published += 1
        session.post(
            Outgoing(
                publish.address.topic, publish.data, 1 if heard else publish.qos,
                publish.address.spec.retained, publish.priority, self._expires_ms(publish),
                partial(self._published, publish, done), heard,
            )
        )  # fmt: skip

    def _published(self, publish: Publish, done: Done | None, error: PublishError | None) -> None:
        if done is not None:
            done(error)
        if error is not None:
            self.counters.unpublished += 1
            if isinstance(error, PublishDeniedError):
                self._reject_own(denied(publish))
        elif publish.qos and self._confirmed is not None:
            self._confirmed(publish)
