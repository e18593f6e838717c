"""What the first design kept in its prototype is kept here, in the places that took their place."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

import spinal.contracts
import spinal.topics
from nervus import brainstem
from nervus.runtime.brokers import brokers
from nervus.wire import Mint, contracts, topics
from nervus.wire.topics import TOPICS
from support import House

ROOT = Path(__file__).parents[2]
GUIDANCE = (ROOT / "hub/nervus/bus/BROKERS.md").read_text()
FIRST = "## Where the first design's places are"


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, each cell as it is written."""
    below = text.partition(heading + "\n")[2].partition("\n## ")[0]
    rows = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in rows[2:]]


def ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def places() -> dict[str, list[Path]]:
    """Each place of the first design, and those that took its place."""
    rows = table((ROOT / "hub/README.md").read_text(), FIRST)
    return {ticked(old)[0]: [ROOT / name for name in ticked(new)] for old, new in rows}


@pytest.mark.req("S0-100")
def test_shared_enums_and_envelope_helpers_have_a_place(places: dict[str, list[Path]]) -> None:
    assert all(path.exists() for path in places["src/shared/"])
    enums = ROOT / str(inspect.getsourcefile(contracts)), ROOT / str(inspect.getsourcefile(Mint))
    assert set(enums) <= set(places["src/shared/"])
    assert set(get_args(contracts.ScopeLevel)) == {"device", "room", "house", "user_session"}


@pytest.mark.req("S0-101")
def test_spinal_contracts_and_topic_helpers_have_a_place(places: dict[str, list[Path]]) -> None:
    found = {Path(str(module.__file__)) for module in (spinal.contracts, spinal.topics)}
    assert set(places["src/spinal_cord/"]) == found
    assert "EfferentCommand" in spinal.contracts.SCHEMAS
    built = spinal.topics.afferent("room", "kitchen", "door", "b1")
    assert built == topics.afferent("room", "kitchen", "door", "b1").topic


@pytest.mark.req("S0-102")
def test_brainstem_contracts_and_topic_helpers_have_a_place(places: dict[str, list[Path]]) -> None:
    folder, helpers = places["src/brainstem/"]
    assert folder == Path(str(brainstem.__file__)).parent
    assert helpers == Path(str(topics.__file__))
    for spec in TOPICS:
        if "brainstem" in spec.publish:
            assert callable(getattr(topics, spec.name))
            assert hasattr(contracts, spec.contract)


@pytest.mark.req("S0-103")
def test_the_boundary_rules_are_written_and_are_those_of_the_topics(
    places: dict[str, list[Path]], house: House
) -> None:
    assert places["broker_boundary_bridge_policy.md"] == [ROOT / "hub/nervus/bus/BROKERS.md"]
    written = {
        branch: set(names.split(", "))
        for branches, names, _ in table(GUIDANCE, "## Boundary")
        for branch in ticked(branches)
    }
    on: dict[str, set[str]] = {}
    for spec in TOPICS:
        branch = "/".join(spec.template.split("/")[:3])
        on.setdefault(branch, set()).update(spec.brokers)
    crossing = {spec.name: spec.publishers("spinal") for spec in TOPICS if len(spec.brokers) == 2}
    del crossing["reject"]
    copied = dict.fromkeys(("global_alert", "global_arousal", "global_parameters"), ("brainstem",))
    assert crossing == {"media_registry": ("media",)} | copied
    on["/sc/media"].discard("core")  # the registry, as its line says
    on["/bs/global"].discard("spinal")  # the copies, likewise
    assert written == on
    for broker in brokers(house.state, house.settings):
        lines = broker.configuration_file.read_text().splitlines()
        assert not [line for line in lines if re.match("connection |bridge_|topic .* both", line)]


@pytest.mark.req("S0-104")
def test_the_guidance_for_mosquitto_is_what_our_own_brokers_have(
    places: dict[str, list[Path]], house: House
) -> None:
    assert places["mosquitto_brain_like_communication.md"] == [ROOT / "hub/nervus/bus/BROKERS.md"]
    advised = [ticked(line)[0] for line, _ in table(GUIDANCE, "## mosquitto")]
    assert len(advised) > 10
    for broker in brokers(house.state, house.settings):
        lines = broker.configuration_file.read_text().splitlines()
        assert set(advised) <= set(lines)
