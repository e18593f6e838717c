"""A house for minutes in a second: whatever is lost, late, doubled or killed, the rules hold."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nervus.brainstem.window import Window
from nervus.thalamus import Claim, Gatekeeper, Lease, Leases, Relay, Summary
from nervus.thalamus.contest import Contest
from nervus.thalamus.gates import GateCache
from nervus.thalamus.proposals import Proposal, Reasons
from nervus.thalamus.stream import Stream
from nervus.wire import RejectLane
from nervus.wire.times import NEVER
from simulation.invariants import Violation
from simulation.run import run_seed

pytestmark = pytest.mark.usefixtures("unmeasured")

SEEDS = range(6)
SECONDS = 20
SITUATIONS = (10, 9, 12)
"""Seeds that meet between them whatever is rare."""
ALWAYS = (
    "role", "life", "accepted", "slower", "inside", "apart", "consulted", "algebra", "no longer",
    "unchanged", "policy", "brief", "lease", "single writer",
)  # fmt: skip
"""What any seed checks; each of them fifty times and more."""
SOMETIMES = (
    "winner takes all", "thinned", "merged", "one a second", "inhibited", "prompt", "copied",
    "superseded",
)  # fmt: skip
"""What only some situations show."""


@pytest.mark.req(
    "S1-4", "S1-8", "S1-10", "S1-34", "S1-62", "S1-67", "S2-3", "S2-4", "S2-10", "S2-14", "S2-17",
    "S2-18", "S2-20", "S2-52", "S2-66", "S2-71", "S2-85", "S2-86", "S2-87",
)  # fmt: skip
@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_hold_through_loss_delay_doubles_jumps_and_crashes(seed: int) -> None:
    report = run_seed(seed, SECONDS)
    assert report.samples > 400
    assert {name for name in ALWAYS if report.checked[name] < 50} == set()


def test_a_few_seeds_meet_every_situation() -> None:
    checked = run_situations()
    assert {name for name in SOMETIMES if not checked[name]} == set()


@pytest.mark.req("S4-56")
def test_a_seed_says_the_same_in_another_process() -> None:
    code = "from simulation.run import run_seed; print(run_seed(7, 8).digest)"
    paths = os.pathsep.join(path for path in sys.path if path)
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths},
            capture_output=True, text=True, timeout=15, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
    assert len(digests.pop()) == 33


def run_situations() -> Counter[str]:
    return sum((run_seed(seed, 15).checked for seed in SITUATIONS), Counter[str]())


def forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates that never expire: stuck suppression."""
    put = GateCache.put

    def eternal(self: GateCache, event: Any) -> Any:
        return put(self, event._replace(left_ms=10**9))

    monkeypatch.setattr(GateCache, "put", eternal)


def ignores_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that never looks."""
    monkeypatch.setattr(GateCache, "met", lambda *_: [])


def counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that count each sample twice."""
    take = Window.take

    def twice(self: Window, *sample: Any) -> None:
        take(self, *sample)
        take(self, *sample)

    monkeypatch.setattr(Window, "take", twice)


def merges_into_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aggregation that never sends what it merged."""
    monkeypatch.setattr(Stream, "release", lambda *_: None)


def holds_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gatekeepers that decide whoever holds the lease, under an epoch of their own."""
    monkeypatch.setattr(Gatekeeper, "epoch", lambda *_: 1_790_000_000)


def leases_to_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that gives every gatekeeper what it asks for."""

    def generous(_: Any, wanted: Claim) -> Leases:
        epoch = 1_790_000_000
        return Leases(tuple(Lease(scope, epoch, wanted.until_ms) for scope in wanted.scopes))

    monkeypatch.setattr("simulation.world.claim", generous)


def lets_nothing_fade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proposals that keep their strength to the end."""
    monkeypatch.setattr(Proposal, "weight_at", lambda self, _: self.weight)


def outlives_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates that hold longer than what speaks for them."""
    monkeypatch.setattr(Reasons, "ends_ms", property(lambda _: NEVER))


def hears_no_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes that change nothing."""
    monkeypatch.setattr(Gatekeeper, "_set_mode", lambda *_: [])


def obeys_whoever_speaks_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that takes the gates of a superseded gatekeeper."""
    put = GateCache.put

    def obedient(self: GateCache, event: Any) -> Any:
        scope = (event.address.levels["scope_level"], event.address.levels["scope"])
        epoch = event.message.payload.epoch
        self._epochs[scope] = min(epoch, self._epochs.get(scope, epoch))
        return put(self, event)

    monkeypatch.setattr(GateCache, "put", obedient)


def lets_all_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contests without losers."""
    monkeypatch.setattr(Contest, "winners", lambda self, _: {e.channel for e in self.entrants})


def attenuates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attenuation that keeps everything."""
    monkeypatch.setattr(Stream, "keeps", lambda *_: True)


def loses_half_of_what_it_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging that forgets what came before."""
    monkeypatch.setattr(Summary, "merged", lambda _, other: other)


def overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live windows that begin before the last one ended."""
    start = Window.__init__

    def early(self: Window, start_ms: int, *rest: Any) -> None:
        start(self, start_ms - 10, *rest)

    monkeypatch.setattr(Window, "__init__", early)


def draws_ids_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that no journal explains."""
    send = Relay._send

    def chance(self: Relay, *rest: Any) -> Any:
        self._mint._ids._random.seed(os.urandom(8))
        return send(self, *rest)

    monkeypatch.setattr(Relay, "_send", chance)


def says_nothing_of_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejects told without an end to their life."""
    event = RejectLane._event

    def lifeless(self: RejectLane, *rest: Any) -> Any:
        publish = event(self, *rest)
        object.__setattr__(publish, "expiry_ms", 0)
        return publish

    monkeypatch.setattr(RejectLane, "_event", lifeless)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (forgets_nothing, "consulted"),
        (ignores_gates, "algebra|consulted"),
        (obeys_whoever_speaks_last, "epoch"),
        (lets_all_win, "winner takes all"),
        (attenuates_nothing, "thinned"),
        (merges_into_nothing, "is stuck"),
        (loses_half_of_what_it_merges, "merged|whole"),
        (holds_no_lease, "lease"),
        (leases_to_anybody, "single writer"),
        (lets_nothing_fade, "policy"),
        (outlives_its_reasons, "brief"),
        (hears_no_modes, "living|policy|prompt"),
        (counts_twice, "more told than taken"),
        (overlaps, "apart"),
        (draws_ids_by_chance, "its journal says something else"),
        (says_nothing_of_rejects, "life"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_plane_is_caught_and_the_seed_is_told(
    broken: Callable[[pytest.MonkeyPatch], None], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises(Violation, match=rule) as caught:
        run_situations()
    assert "tools/soak simulation --from " in str(caught.value)


def test_soak_runs_the_seeds_it_is_told() -> None:
    tools = Path(__file__).parents[2] / "tools"
    paths = os.pathsep.join([str(tools), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-m", "soaks", "simulation", "--seeds=2", "--from=40", "--seconds=4"],
        capture_output=True, text=True, timeout=18, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("2 seeds from 40: 0 failed; 8 s simulated")
