"""The shell: judged, stepped, committed, published, acknowledged; in this order."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from hub.plain_broker import PlainBroker, running, within
from hub.plane_inputs import afferent, bundle
from nervus.bus import (
    Filter,
    Journal,
    JournalRun,
    JournalSettings,
    Limits,
    OfferTimeoutError,
    Outgoing,
    Session,
    Shell,
    Start,
    subscriptions,
)
from nervus.bus.errors import ClockSetBackError
from nervus.bus.journal_file import Refused, Took
from nervus.wire import (
    Accepted,
    Connected,
    Guard,
    Mint,
    Packet,
    Publish,
    RejectLane,
    encode,
    refuse,
    topics,
    unix_ms,
)
from nervus.wire.contracts import RelayBundle
from support import DEADLINE_S

NOW_MS = unix_ms("2026-11-20T12:00:00.000Z")


@dataclass(frozen=True)
class Durable:
    """An effect for the store."""

    number: int


class Recorder:
    """A core that remembers what it was given; `answer` makes its effects."""

    due_ms = 0

    def __init__(self, answer: Callable[[Any], Sequence[Any]] = lambda _: ()) -> None:
        self.events: list[Any] = []
        self.times: list[int] = []
        self.ticks = 0
        self._answer = answer

    def step(self, event: Any, now_ms: int) -> Sequence[Any]:
        self.events.append(event)
        self.times.append(now_ms)
        return self._answer(event)

    def tick(self, now_ms: int) -> Sequence[Any]:
        self.times.append(now_ms)
        self.ticks += 1
        return ()

    @property
    def messages(self) -> list[Any]:
        return [event for event in self.events if isinstance(event, Accepted)]


class Stand:
    """A shell on a real broker, and a foreign client beside it."""

    def __init__(self, broker: PlainBroker, core: Recorder, **options: Any) -> None:
        mint = Mint("part", "brainstem", seed=1, boot=1)
        limits = Limits(receive_maximum=options.pop("receive_maximum", 100))
        self.now_ms = NOW_MS
        self.session = Session(
            "part", "core", broker.address, filters=subscriptions([topics.RELAY_BUNDLE]),
            limits=limits, clock=lambda: self.now_ms,
        )  # fmt: skip
        self.shell = Shell(
            core,
            [self.session],
            Guard([topics.RELAY_BUNDLE]),
            RejectLane(mint, "home"),
            clock=lambda: self.now_ms,
            **options,
        )
        self.seen: list[Packet] = []
        self.foreign = Session(
            "foreign", "core", broker.address, on_packet=self._see,
            filters=[Filter("/th/#", 1), Filter("/X/#", 1)],
        )  # fmt: skip
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._foreign = running(self.foreign)
        await self._foreign.__aenter__()
        ready = asyncio.Event()
        self.task = asyncio.create_task(self.shell.run(ready.set))
        async with asyncio.timeout(5):
            await ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        if not self.task.done():
            self.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await self.task
        await self._foreign.__aexit__(None, None, None)

    async def send(self, message: Publish | None = None, *, qos: int = 1) -> None:
        """Send a driver message that the guard accepts."""
        publish = message or driver()
        await self.foreign.publish(publish.address.topic, encode(publish.message), qos=qos)

    async def _see(self, packet: Packet) -> None:
        self.seen.append(packet)


_IDS = Mint("brainstem", "brainstem", seed=9, boot=1)


def driver(now_ms: int = NOW_MS) -> Publish:
    address = topics.relay_bundle("room", "kitchen", "somatic")
    return _IDS.full(RelayBundle, address, bundle().message.payload, now_ms)


def relayed(event: Any) -> list[Publish]:
    if not isinstance(event, Accepted):
        return []
    address = topics.gated_relay("room", "kitchen", "somatic")
    return [_IDS.full(RelayBundle, address, event.message.payload, NOW_MS, cause=event.message)]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    one = PlainBroker(tmp_path)
    await one.start()
    yield one
    one.kill()


async def test_a_packet_is_judged_stepped_published_and_acknowledged(broker: PlainBroker) -> None:
    core = Recorder(relayed)
    async with Stand(broker, core) as stand:
        await stand.send()
        await within(lambda: len(stand.seen) == 1)
        await within(lambda: "Received PUBACK from part" in broker.log())
    assert core.events[0] == Connected("core")
    assert core.messages[0].message.meta.contract == "RelayBundle"
    assert stand.seen[0].topic == "/th/relay/event/room/kitchen/channel/somatic"
    assert stand.shell.counters.published == 1


@pytest.mark.req("S0-82", "S0-84")
async def test_a_reject_goes_to_its_lane_and_not_to_the_core(broker: PlainBroker) -> None:
    core = Recorder()
    async with Stand(broker, core) as stand:
        await stand.foreign.publish(driver().address.topic, b"{]", qos=1)
        await within(lambda: len(stand.seen) == 1)
        await within(lambda: "Received PUBACK from part" in broker.log())
    event = json.loads(stand.seen[0].payload)
    assert event["payload"]["reason_code"] == "decode_error"
    assert core.messages == []
    assert stand.shell.counters.rejected == 1


async def test_a_core_may_refuse_what_the_guard_accepted(broker: PlainBroker) -> None:
    core = Recorder(
        lambda event: (
            [refuse(event, "unknown_device", "apply", "who is that?")]
            if isinstance(event, Accepted)
            else []
        )
    )
    async with Stand(broker, core) as stand:
        await stand.send()
        await within(lambda: len(stand.seen) == 1)
    payload = json.loads(stand.seen[0].payload)["payload"]
    assert (payload["reason_code"], payload["reason"]) == ("unknown_device", "who is that?")
    assert payload["input_ref"]["message_id"] == core.messages[0].message.meta.message_id


async def test_nothing_is_published_or_acknowledged_before_it_is_committed(
    broker: PlainBroker,
) -> None:
    commits: list[Sequence[Any]] = []
    go = asyncio.Event()

    async def commit(effects: Sequence[Any]) -> None:
        commits.append(effects)
        await go.wait()

    def answer(event: Any) -> list[Any]:
        return [*relayed(event), Durable(7)] if isinstance(event, Accepted) else []

    async with Stand(broker, Recorder(answer), commit=commit) as stand:
        await stand.send()
        await within(lambda: commits == [[Durable(7)]])
        await asyncio.sleep(0.2)
        assert stand.seen == []
        assert "Received PUBACK from part" not in broker.log()
        go.set()
        await within(lambda: len(stand.seen) == 1)
        await within(lambda: "Received PUBACK from part" in broker.log())


async def test_commits_overlap_and_what_they_allow_is_published_in_order(
    broker: PlainBroker,
) -> None:
    waiting: list[asyncio.Event] = []

    async def commit(_: Sequence[Any]) -> None:
        waiting.append(asyncio.Event())
        await waiting[-1].wait()

    core = Recorder(lambda event: _every_second(core, event))
    async with Stand(broker, core, commit=commit) as stand:
        sent = [driver() for _ in range(6)]
        for one in sent:
            await stand.send(one)
        await within(lambda: len(waiting) == 3)
        for event in reversed(waiting):
            assert stand.seen == []
            event.set()
        await within(lambda: len(stand.seen) == 6)
    parents = [json.loads(packet.payload)["meta"]["parent_id"] for packet in stand.seen]
    assert parents == [one.message.meta.message_id for one in sent]


def _every_second(core: Recorder, event: Any) -> list[Any]:
    durable = [Durable(1)] if len(core.messages) % 2 == 1 else []
    return relayed(event) + durable if isinstance(event, Accepted) else []


async def test_steps_that_wait_for_commits_are_bounded(
    broker: PlainBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shell, "commit_limit", 3)
    go = asyncio.Event()

    async def commit(_: Sequence[Any]) -> None:
        await go.wait()

    core = Recorder(lambda event: [Durable(1)] if isinstance(event, Accepted) else [])
    async with Stand(broker, core, commit=commit) as stand:
        for _ in range(10):
            await stand.send()
        await within(lambda: stand.shell.counters.packets == 10)
        await asyncio.sleep(0.1)
        assert len(core.messages) == 3
        go.set()
        await within(lambda: len(core.messages) == 10)


async def test_the_broker_having_it_is_told(broker: PlainBroker) -> None:
    confirmed: list[Publish] = []

    def urgent(event: Any) -> list[Publish]:
        if not isinstance(event, Accepted):
            return []
        address = topics.gated_relay("room", "kitchen", "somatic")
        payload = event.message.payload
        return [_IDS.full(RelayBundle, address, payload, NOW_MS, priority="critical")]

    async with Stand(broker, Recorder(urgent), confirmed=confirmed.append) as stand:
        await stand.send()
        await within(lambda: len(confirmed) == 1)
    assert confirmed[0].address.spec is topics.GATED_RELAY


async def test_an_error_of_the_core_ends_the_shell(broker: PlainBroker) -> None:
    def boom(event: Any) -> list[Any]:
        if isinstance(event, Accepted):
            raise ZeroDivisionError("the core is broken")
        return []

    async with Stand(broker, Recorder(boom)) as stand:
        await stand.send()
        assert stand.task is not None
        with pytest.raises(ZeroDivisionError, match="the core is broken"):
            await asyncio.wait_for(stand.task, DEADLINE_S)


async def test_an_error_of_a_commit_ends_the_shell_and_nothing_is_published(
    broker: PlainBroker,
) -> None:
    async def commit(_: Sequence[Any]) -> None:
        raise OSError("disk full")

    def answer(event: Any) -> list[Any]:
        return [*relayed(event), Durable(1)] if isinstance(event, Accepted) else []

    async with Stand(broker, Recorder(answer), commit=commit) as stand:
        await stand.send()
        assert stand.task is not None
        with pytest.raises(OSError, match="disk full"):
            await asyncio.wait_for(stand.task, DEADLINE_S)
        await asyncio.sleep(0.1)
    assert stand.seen == []
    assert "Received PUBACK from part" not in broker.log()


async def test_an_effect_that_nobody_commits_is_an_error(broker: PlainBroker) -> None:
    answer = lambda event: [Durable(1)] if isinstance(event, Accepted) else []  # noqa: E731
    async with Stand(broker, Recorder(answer)) as stand:
        await stand.send()
        assert stand.task is not None
        with pytest.raises(TypeError, match="Durable"):
            await asyncio.wait_for(stand.task, DEADLINE_S)


async def test_an_effect_for_a_broker_without_a_session_is_an_error(broker: PlainBroker) -> None:
    publish = Publish(afferent(1).address, afferent(1).message)
    core = Recorder(lambda event: [publish] if isinstance(event, Accepted) else [])
    async with Stand(broker, core) as stand:
        await stand.send()
        assert stand.task is not None
        with pytest.raises(TypeError, match="no session on the spinal broker"):
            await asyncio.wait_for(stand.task, DEADLINE_S)


async def test_the_core_is_ticked_and_its_time_never_runs_backwards(broker: PlainBroker) -> None:
    core = Recorder()
    async with Stand(broker, core) as stand:
        for offset_ms in (100, -5_000, 200):
            stand.now_ms = NOW_MS + offset_ms
            await asyncio.sleep(0.12)
        async with asyncio.timeout(DEADLINE_S):
            while core.ticks < 3:
                stand.now_ms += 100
                await asyncio.sleep(0.12)
    assert core.times == sorted(core.times)


async def test_a_clock_set_far_back_ends_the_shell_instead_of_freezing_its_core(
    broker: PlainBroker,
) -> None:
    core = Recorder()
    async with Stand(broker, core) as stand:
        await within(lambda: core.ticks > 0)
        stand.now_ms = NOW_MS - 600_000
        assert stand.task is not None
        with pytest.raises(ClockSetBackError, match="set back by 600 s"):
            await asyncio.wait_for(stand.task, DEADLINE_S)


async def test_an_offered_event_is_stepped(broker: PlainBroker) -> None:
    core = Recorder()
    async with Stand(broker, core) as stand:
        await stand.shell.offer(Durable(3))
        await within(lambda: Durable(3) in core.events)


async def test_an_offer_to_a_full_inbox_is_told_by_the_deadline(
    broker: PlainBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shell, "inbox_limit", 1)
    stand = Stand(broker, Recorder())
    await stand.shell.offer(Durable(1))
    with pytest.raises(OfferTimeoutError, match="Durable"):
        await stand.shell.offer(Durable(2), deadline_s=0.05)


@pytest.mark.req("S2-83")
async def test_a_flood_is_dropped_told_and_never_delays_what_is_acknowledged(
    broker: PlainBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shell, "inbox_limit", 10)
    monkeypatch.setattr(Shell, "commit_limit", 1)
    go = asyncio.Event()

    async def commit(_: Sequence[Any]) -> None:
        await go.wait()

    core = Recorder(lambda event: [Durable(1)] if isinstance(event, Accepted) else [])
    start = Start("part", "1", "c0de", {}, 1, 1, "home")
    journal = Journal(tmp_path / "journal", start, JournalSettings())
    async with Stand(broker, core, commit=commit, journal=journal) as stand:
        await stand.send()
        await within(lambda: len(core.messages) == 1)
        for _ in range(30):
            await stand.send(qos=0)
        await within(lambda: stand.shell.counters.packets == 31)
        assert stand.shell.counters.dropped == 20
        urgent = driver()
        await stand.send(urgent)
        await within(lambda: stand.shell.counters.packets == 32)
        go.set()
        await within(lambda: len(core.messages) == 12)
        await within(lambda: len(stand.seen) == 1)
    assert core.messages[1].message.meta.message_id == urgent.message.meta.message_id
    assert json.loads(stand.seen[0].payload)["payload"]["reason_code"] == "queue_full"
    journal.close()
    (run,) = JournalRun.all_of(tmp_path / "journal")
    kinds = Counter(type(record) for record in run.records())
    # What the shell drops draws ids too: without it a replay would make others.
    assert (kinds[Took], kinds[Refused]) == (12, 20)


@pytest.mark.req("S2-83")
async def test_a_backlog_of_content_keeps_neither_control_waiting_nor_the_sockets(
    broker: PlainBroker,
) -> None:
    turns, behind, longest, since_turn, turn_seen = 0, 0, 0, 0, 0
    urgent = driver()

    def answer(event: Any) -> Sequence[Any]:
        nonlocal behind, longest, since_turn, turn_seen
        began = time.perf_counter()
        if not isinstance(event, Accepted):
            return ()
        if event.message.meta.message_id == urgent.message.meta.message_id:
            return relayed(event)
        behind += stand.shell.counters.published > stand.session.counters.published
        since_turn = since_turn + 1 if turn_seen == turns else 1
        longest, turn_seen = max(longest, since_turn), turns
        while time.perf_counter() < began + 0.001:
            pass
        return ()

    async def look() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    core = Recorder(answer)
    async with Stand(broker, core) as stand:
        looking = asyncio.create_task(look())
        for qos, messages in ((0, [driver() for _ in range(200)]), (1, [urgent])):
            for each in messages:
                stand.foreign.post(Outgoing(each.address.topic, encode(each.message), qos))
        await within(lambda: len(core.messages) == 201)
        await within(lambda: len(stand.seen) == 1)
        looking.cancel()
    # Its answer was gone before more content was taken, and the loop had turns in between.
    assert (behind, longest <= 16) == (0, True)


async def test_a_denied_publish_is_counted(tmp_path: Path) -> None:
    one = PlainBroker(tmp_path, "topic readwrite /bs/#\ntopic read /th/#\ntopic readwrite /X/#\n")
    await one.start()
    try:
        async with Stand(one, Recorder(_critical)) as stand:
            await stand.send()
            await within(lambda: stand.session.counters.denied == 1)
            assert stand.shell.counters.unpublished == 1
    finally:
        one.kill()


def _critical(event: Any) -> list[Publish]:
    if not isinstance(event, Accepted):
        return []
    address = topics.gated_relay("room", "kitchen", "somatic")
    return [_IDS.full(RelayBundle, address, event.message.payload, NOW_MS, priority="critical")]


@pytest.mark.req("S2-38", "S2-36")
async def test_what_the_broker_denies_becomes_a_reject(tmp_path: Path) -> None:
    def critical(event: Any) -> list[Publish]:
        address = topics.gated_relay("room", "kitchen", "somatic")
        payload = bundle().message.payload
        effect = _IDS.full(RelayBundle, address, payload, NOW_MS, priority="critical")
        return [effect] if isinstance(event, Accepted) else []

    rights = "topic read #\ntopic write /bs/#\ntopic write /X/#\n"
    broker = PlainBroker(tmp_path, rights)
    await broker.start()
    try:
        async with Stand(broker, Recorder(critical)) as stand:
            await stand.send()
            await within(lambda: len(stand.seen) == 1)
        assert stand.shell.counters.unpublished == 1
    finally:
        broker.kill()
    verdict = Guard([topics.REJECT]).judge(stand.seen[0], NOW_MS)
    assert isinstance(verdict, Accepted)
    told = verdict.message.payload
    assert (told.reason_code, told.stage) == ("acl_denied", "broker")
    assert told.input_ref.source_topic == "/th/relay/event/room/kitchen/channel/somatic"
