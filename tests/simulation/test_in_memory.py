"""Every plane runs by its contracts alone: brokers in memory, no socket, no disk."""

import inspect
import socket
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from typing import Any, Never

import pytest

from contract.vectors import VECTORS
from nervus.brainstem import BrainstemSettings
from nervus.brainstem import build as build_brainstem
from nervus.bus import Origin
from nervus.history import History, HistorySettings
from nervus.history import service as history_service
from nervus.policy import Policy, PolicySettings
from nervus.policy import service as policy_service
from nervus.reflect import service as reflect_service
from nervus.reflect.core import Reflect
from nervus.reflect.settings import ReflectSettings
from nervus.reliable import Reliable, ReliableSettings
from nervus.reliable import service as reliable_service
from nervus.thalamus import ThalamusSettings
from nervus.thalamus import build as build_relay
from nervus.thalamus.machine import build_gatekeeper
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, encode, topics
from nervus.wire.contracts import AfferentSignal, RejectEvent, RelayBundle
from simulation.process import Step
from simulation.world import CALM, World


@pytest.fixture(autouse=True)
def _neither_network_nor_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Never:
        raise AssertionError("a core reached out of itself")

    def in_memory(database: str, **options: Any) -> sqlite3.Connection:
        if database != ":memory:":
            refuse()
        made: sqlite3.Connection = connect(database, **options)
        return made

    connect = sqlite3.connect
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(sqlite3, "connect", in_memory)


@pytest.mark.req("S0-88")
def test_brokers_in_memory_route_what_is_good_and_show_why_the_rest_was_refused() -> None:
    steps: list[Step] = []
    world = World(3, CALM, steps.append)
    world.run(5)
    afferent = topics.afferent("room", "kitchen", "temperature", "b0").topic
    hostile = Packet("spinal", afferent, b'{"meta": {"contract": NaN}}')
    world._carry(hostile, "afferent", 1)
    world.run(2)
    took: defaultdict[str, set[str]] = defaultdict(set)
    for step in steps:
        if isinstance(step.verdict, Accepted):
            took[step.process.name].add(type(step.verdict.message).__name__)
    said = [(step.process.name, publish) for step in steps for publish in step.sent]
    routed = {
        (name, publish.address.spec.name)
        for name, publish in said
        if isinstance(publish.message, RelayBundle)
    }
    assert routed == {("brainstem", "relay_bundle"), ("relay", "gated_relay")}
    assert AfferentSignal.__name__ in took["brainstem"]
    assert RelayBundle.__name__ in took["relay"]
    assert AfferentSignal.__name__ not in took["relay"]
    (reject,) = (publish for _, publish in said if isinstance(publish.message, RejectEvent))
    assert reject.address.spec is topics.REJECT
    payload = reject.message.payload
    assert (payload.reason_code, payload.input_ref.source_topic) == ("decode_error", afferent)


GRANTED = {"b1": "room/kitchen"}.get
ORIGIN = Origin(seed=1, boot=1, house="home")


def policy_and_reliable() -> tuple[Policy, Reliable]:
    reliable = Reliable(ReliableSettings(), Mint("reliable", "reliable", seed=2, boot=1))
    return Policy(PolicySettings(), Mint("policy", "policy", seed=1, boot=1), reliable), reliable


def machine(build: Any, settings: Any) -> tuple[Any, Guard]:
    made = build(settings, ORIGIN, GRANTED)
    return made.core, made.guard


PLANES: dict[str, tuple[str, Callable[[], tuple[Any, Guard]], set[str]]] = {
    "brainstem": (
        "nervus.brainstem.service",
        lambda: machine(build_brainstem, BrainstemSettings()),
        {"AfferentSignal", "PatternTrigger", "GlobalModeUpdate"},
    ),
    "relay": (
        "nervus.thalamus.service",
        lambda: machine(build_relay, ThalamusSettings()),
        {"RelayBundle", "GateState"},
    ),
    "gatekeeper": (
        "nervus.thalamus.gatekeeper_service",
        lambda: machine(build_gatekeeper, ThalamusSettings()),
        {"ModulatorSignal", "GlobalModeUpdate"},
    ),
    "policy": (
        "nervus.policy.service",
        lambda: (policy_and_reliable()[0], Guard(policy_service.TAKES)),
        {"CommandRequest"},
    ),
    "reliable": (
        "nervus.policy.service",
        lambda: (policy_and_reliable()[1], Guard(reliable_service.TAKES, granted=GRANTED)),
        {"EfferentReport", "DeviceInfo", "Ping", "ReflexState"},
    ),
    "reflect": (
        "nervus.reflect.service",
        lambda: (Reflect(ReflectSettings()), Guard(reflect_service.TAKES)),
        {"RejectEvent"},
    ),
    "history": (
        "nervus.history.service",
        lambda: (History(HistorySettings()), Guard(history_service.TAKES)),
        {"RelayBundle", "Outcome", "GateState"},
    ),
}
"""Each plane: its service, its core and guard as the service makes them, some of what it takes."""


@pytest.mark.req("S0-87")
@pytest.mark.parametrize("plane", PLANES)
def test_each_plane_takes_its_contracts_and_refuses_all_others_by_itself(plane: str) -> None:
    service, build, expected = PLANES[plane]
    took, effects = set(), []
    valid = [v for vectors in VECTORS.values() for v in vectors if v.topic and v.stage is None]
    for vector in valid:
        core, guard = build()
        verdict = guard.judge(vector.packet, vector.now_ms)
        if isinstance(verdict, Accepted):
            took.add(vector.contract)
            effects += core.step(verdict, vector.now_ms)
            effects += core.tick(vector.now_ms + 60_000)
    assert expected <= took < set(VECTORS)
    assert effects
    assert all(encode(e.message) for e in effects if isinstance(e, Publish))
    assert inspect.iscoroutinefunction(import_module(service).run)
