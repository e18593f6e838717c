"""Every plane that `nervus replay` knows runs again from its journal as it ran."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.journals import only_run
from hub.plane_inputs import NOW_MS, afferent, bundle, bundle_payload, gate
from nervus.brainstem import BrainstemSettings
from nervus.bus import Journal, JournalSettings, Origin, Start, publishes
from nervus.bus.journal_file import Answered, Ticked, Took
from nervus.runtime.replay import PLANES, replay_of
from nervus.wire import Accepted, Mint, Packet, Rejected, encode, topics
from nervus.wire.contracts import InputRef, RejectEvent, RejectEventPayload, RelayBundle
from nervus.wire.raw import RawGrant

GRANT = RawGrant(
    id="g", topic_prefix="/sc/aff/event/room/kitchen/sensor/temperature", rate=5,
    expires_ms=NOW_MS + 900, decision_id="d",
)  # fmt: skip
RELAY = Mint("relay", "thalamus", seed=4, boot=1)


def sent(event: Accepted) -> Packet:
    spec = event.address.spec
    return Packet(event.broker, event.address.topic, encode(event.message), spec.retained)


def gated(now_ms: int) -> Packet:
    address = topics.gated_relay("room", "kitchen", "somatic")
    publish = RELAY.full(RelayBundle, address, bundle_payload(), now_ms)
    return Packet("core", address.topic, publish.data)


def reject(now_ms: int) -> Packet:
    address = topics.reject("room", "kitchen")
    payload = RejectEventPayload(
        reason_code="decode_error", stage="decode", input_ref=InputRef(), observed_at=now_ms
    )
    return Packet("core", address.topic, RELAY.full(RejectEvent, address, payload, now_ms).data)


def inputs(plane: str) -> Iterator[tuple[int, Packet]]:
    for n in range(40):
        now_ms = NOW_MS + n * 40
        match plane:
            case "brainstem":
                yield now_ms, sent(afferent(n, now_ms))
            case "relay":
                yield now_ms, sent(bundle(now_ms=now_ms))
            case "raw":
                yield now_ms, sent(afferent(n, now_ms))
                yield now_ms, sent(gate(n % 5 / 5, now_ms))
            case "history":
                yield now_ms, gated(now_ms)
            case "reflect":
                yield now_ms, reject(now_ms)
        yield now_ms, Packet("core", "/C/nonsense", b"{")


def record(plane: str, folder: Path) -> list[bytes]:
    """Run a plane as its shell does, with a journal; what came of it."""
    known = PLANES[plane]
    extra = {"grants": (GRANT,), "gatekeeper": False} if plane == "raw" else {}
    settings = known.settings(**extra)
    origin = Origin(seed=7, boot=NOW_MS // 1000, house="home")
    start = Start(
        plane, "1", "c0de", settings.model_dump(mode="json"), origin.seed, origin.boot, "home"
    )
    said: list[Any] = []
    with Journal(folder, start, JournalSettings(enabled=True)) as journal:
        machine = known.build(settings, origin, journal.granted({"b1": "room/kitchen"}.get))

        def apply(effects: Any, now_ms: int) -> None:
            for effect in effects:
                if isinstance(effect, Rejected):
                    apply(machine.lane.step(effect, now_ms), now_ms)
                else:
                    said.append(copy.copy(effect))
                    journal.output(effect)

        for now_ms, packet in inputs(plane):
            verdict = machine.guard.judge(packet, now_ms)
            journal.packet(now_ms, packet)
            rejected = isinstance(verdict, Rejected)
            apply([verdict] if rejected else machine.core.step(verdict, now_ms), now_ms)
            journal.tick(now_ms)
            apply(machine.core.tick(now_ms), now_ms)
            apply(machine.lane.tick(now_ms), now_ms)
    return said


@pytest.mark.req("S4-17")
def test_with_other_settings_what_is_due_at_other_times_is_done_then() -> None:
    settings = BrainstemSettings(window_ms=5_000).model_dump(mode="json")
    start = Start("brainstem", "1", "c0de", settings, 7, NOW_MS // 1000, "home")
    silence = [Ticked(1, NOW_MS + 5_280), Ticked(2, NOW_MS + 60_000)]
    records = [start, Answered("b1", "room/kitchen"), Took(0, NOW_MS, sent(afferent(1, NOW_MS)))]

    def bundles(changes: dict[str, Any]) -> list[int]:
        runs = replay_of(start, changes).run([*records, *silence], timely=True)
        return [at_ms for at_ms, one in publishes(runs) if one.address.spec is topics.RELAY_BUNDLE]

    lateness_ms = BrainstemSettings().lateness_ms
    assert bundles({}) == [NOW_MS + 5_280]
    assert bundles({"window_ms": 1_000}) == [NOW_MS + 1_000 + lateness_ms]


@pytest.mark.req("S4-56")
@pytest.mark.parametrize("plane", ["brainstem", "relay", "raw", "history", "reflect"])
def test_a_journal_of_a_plane_replays_to_the_same_outputs(plane: str, tmp_path: Path) -> None:
    said = record(plane, tmp_path)
    run = only_run(tmp_path)
    replay = replay_of(run.start())
    again = list(replay.run(run.records()))
    assert replay.exact
    assert [each for one in again for each in one.effects] == said
    assert {one.agrees for one in again[:-1]} == {True}
    assert len(said) > 5
