"""The supervisor's pure core."""

import random

import pytest

from nervus.runtime.supervision import (
    ChildState,
    Effect,
    Event,
    Exited,
    Finished,
    Kill,
    Ready,
    Spawn,
    Stop,
    Supervision,
    Terminate,
    Timing,
)

TIMING = Timing(
    first_pause_ms=100,
    longest_pause_ms=1_000,
    healthy_ms=5_000,
    ready_ms=2_000,
    longest_ready_ms=16_000,
    stop_ms=3_000,
)


def up() -> Supervision:
    """A broker and two services, all ready at 10 ms."""
    core = Supervision([["broker"], ["a", "b"]], TIMING)
    assert core.tick(0) == [Spawn("broker")]
    assert core.step(Ready("broker"), 10) == [Spawn("a"), Spawn("b")]
    assert core.step(Ready("a"), 10) == []
    assert core.step(Ready("b"), 10) == []
    assert core.all_ready
    return core


def test_services_wait_for_the_broker() -> None:
    core = Supervision([["broker"], ["a"]], TIMING)
    core.tick(0)
    assert core.tick(1_000) == []
    assert core.state("a") is ChildState.WAITING
    assert core.step(Ready("broker"), 1_500) == [Spawn("a")]


def test_a_killed_child_is_started_again_after_the_first_pause() -> None:
    core = up()
    assert core.step(Exited("a", -9), 1_000) == []
    assert core.next_ms() == 1_100
    assert core.tick(1_099) == []
    assert core.tick(1_100) == [Spawn("a")]
    assert core.restarts("a") == 1
    assert not core.all_ready


def test_a_restarted_broker_leaves_the_services_alone() -> None:
    core = up()
    core.step(Exited("broker", -9), 1_000)
    assert core.tick(1_100) == [Spawn("broker")]
    assert core.state("a") is ChildState.READY


def test_pauses_double_up_to_the_longest() -> None:
    core = up()
    now, pauses = 1_000, []
    for _ in range(6):
        core.step(Exited("a", 1), now)
        due = core.next_ms()
        assert due is not None
        pauses.append(due - now)
        assert core.tick(due) == [Spawn("a")]
        now = due + 1
    assert pauses == [100, 200, 400, 800, 1_000, 1_000]


def test_a_healthy_time_forgives() -> None:
    core = up()
    for now in (1_000, 2_000, 3_000):
        core.step(Exited("a", 1), now)
        core.tick(now + 900)
    core.step(Ready("a"), 4_000)
    core.step(Exited("a", 1), 9_000)
    assert core.next_ms() == 9_100


def test_a_short_time_does_not_forgive() -> None:
    core = up()
    core.step(Exited("a", 1), 1_000)
    core.tick(1_100)
    core.step(Ready("a"), 1_200)
    core.step(Exited("a", 1), 6_199)
    assert core.next_ms() == 6_399


def test_a_child_that_is_not_ready_in_time_is_killed_and_started_again() -> None:
    core = Supervision([["broker"]], TIMING)
    core.tick(0)
    assert core.next_ms() == 2_000
    assert core.tick(2_000) == [Kill("broker", 2_000)]
    assert core.tick(2_001) == []
    core.step(Exited("broker", -9), 2_010)
    assert core.tick(2_110) == [Spawn("broker")]


def test_children_that_starve_beside_each_other_come_up_in_the_end() -> None:
    # Each needs the processor for 1 s of the 2 s it has; five of them share it.
    core = Supervision([["a", "b", "c", "d", "e"]], TIMING)
    used, now, kills = dict.fromkeys("abcde", 0.0), 0, 0
    starting: set[str] = set()
    effects = core.tick(now)
    while not core.all_ready:
        for effect in effects:
            match effect:
                case Spawn(name):
                    starting.add(name)
                    used[name] = 0.0
                case Kill(name):
                    kills += 1
                    starting.remove(name)
                    core.step(Exited(name, -9), now)
        now += 10
        assert now < 60_000, "they starve forever"
        for name in sorted(starting):
            used[name] += 10 / len(starting)
        for name in [name for name in sorted(starting) if used[name] >= 1_000]:
            starting.remove(name)
            core.step(Ready(name), now)
        effects = core.tick(now)
    assert kills


def test_the_time_to_become_ready_grows_to_its_longest_and_falls_back_once_ready() -> None:
    core = Supervision([["a"]], TIMING)
    core.tick(0)
    allowed: list[int] = []
    while len(allowed) < 5:
        due = core.next_ms()
        assert due is not None
        match core.tick(due):
            case [Kill(_, after_ms)]:
                allowed.append(after_ms)
                core.step(Exited("a", -9), due)
    assert allowed == [2_000, 4_000, 8_000, 16_000, 16_000]
    assert core.tick(due + 1_000) == [Spawn("a")]
    core.step(Ready("a"), due + 2_000)
    core.step(Exited("a", 1), due + 2_001)
    core.tick(due + 3_001)
    assert core.next_ms() == due + 5_001


def test_stopping_goes_from_the_services_to_the_brokers() -> None:
    core = up()
    assert core.step(Stop(), 1_000) == [Terminate("a"), Terminate("b")]
    assert core.step(Exited("b", 0), 1_100) == []
    assert core.step(Exited("a", 0), 1_200) == [Terminate("broker")]
    assert core.step(Exited("broker", 0), 1_300) == [Finished()]
    assert core.tick(9_000) == []
    assert core.next_ms() is None


def test_a_child_that_does_not_stop_in_time_is_killed() -> None:
    core = up()
    core.step(Stop(), 1_000)
    core.step(Exited("b", 0), 1_100)
    assert core.next_ms() == 4_000
    assert core.tick(4_000) == [Kill("a", 3_000)]
    assert core.step(Exited("a", -9), 4_010) == [Terminate("broker")]


def test_stopping_between_restarts_starts_nothing() -> None:
    core = up()
    core.step(Exited("a", 1), 1_000)
    assert core.step(Stop(), 1_050) == [Terminate("b")]
    assert core.tick(1_100) == []
    assert core.state("a") is ChildState.STOPPED


def test_stopping_before_anything_started_is_finished_at_once() -> None:
    core = Supervision([["broker"], ["a"]], TIMING)
    assert core.step(Stop(), 0) == [Finished()]


def test_a_child_that_refuses_its_settings_stops_all_and_is_named() -> None:
    core = Supervision([["broker"], ["a"]], TIMING)
    core.tick(0)
    core.step(Ready("broker"), 10)
    assert core.step(Exited("a", 2), 20) == [Terminate("broker")]
    assert core.step(Exited("broker", 0), 30) == [Finished("a")]


def test_misuse_after_it_once_served_is_an_ordinary_failure() -> None:
    core = up()
    core.step(Exited("a", 2), 1_000)
    assert core.tick(1_100) == [Spawn("a")]


def test_a_late_ready_of_a_stopping_child_changes_nothing() -> None:
    core = Supervision([["broker"]], TIMING)
    core.tick(0)
    core.step(Stop(), 10)
    assert core.step(Ready("broker"), 20) == []
    assert core.state("broker") is ChildState.STOPPING


@pytest.mark.parametrize("seed", range(200))
def test_in_any_order_of_events_nobody_runs_twice_and_stopping_ends(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  a schedule, not a secret
    core = Supervision([["s", "c"], ["x", "y", "z"]], TIMING)
    running: set[str] = set()
    now = 0

    def obey(effects: list[Effect]) -> bool:
        for effect in effects:
            match effect:
                case Spawn(name):
                    assert name not in running
                    running.add(name)
                case Terminate(name) | Kill(name):
                    assert name in running
                case Finished():
                    assert not running
                    return True
        return False

    assert not obey(core.tick(now))
    for _ in range(300):
        now += chance.randrange(400)
        event: Event | None = None
        if running and chance.random() < 0.6:
            name = chance.choice(sorted(running))
            event = Ready(name)
            if chance.random() < 0.4:
                running.discard(name)
                event = Exited(name, chance.choice([0, 1, -9]))
        assert not obey(core.step(event, now) if event else core.tick(now))
    finished = obey(core.step(Stop(), now))
    while not finished:
        due = core.next_ms()
        assert due is not None
        now = max(now, due)
        obey(core.tick(now))
        name = chance.choice(sorted(running))
        running.discard(name)
        finished = obey(core.step(Exited(name, 0), now))
    assert all(core.state(name) is ChildState.STOPPED for name in "scxyz")
