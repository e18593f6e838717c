"""Measures what every role may publish and read on every topic, on running brokers.

What may be comes from topics.json as it stands there; none of the code that writes the brokers'
permissions is used. A topic or role added to the file is measured from then on.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervus.runtime.brokers import brokers
from nervus.runtime.identity import Identity
from nervus.runtime.state import BROKERS, BrokerName
from security.clients import NOT_AUTHORIZED, Peer
from support import House, eventually

REPOSITORY = Path(__file__).parents[2]
BOARD, SCOPE_LEVEL, SCOPE = "porch", "room", "hall"
CONTROL = "control"


@dataclass(frozen=True)
class Cell:
    """One role at one topic of one broker: what topics.json says and what was measured.

    `wrong` says what the broker did that is neither a clean grant nor a clean denial.
    """

    broker: BrokerName
    topic: str
    role: str
    expected: tuple[bool, bool]
    publishes: bool
    reads: bool
    wrong: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the broker does what topics.json says."""
        return not self.wrong and self.expected == (self.publishes, self.reads)

    def __str__(self) -> str:
        mark = ("P" if self.publishes else "-") + ("R" if self.reads else "-")
        return mark if self.holds else mark + "!"


@dataclass(frozen=True)
class Topic:
    """A row of topics.json with one concrete topic for each actor."""

    row: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.row["name"])

    def expected(self, role: str, broker: BrokerName) -> tuple[bool, bool]:
        """Whether a role may publish and read; boards have rights on the spinal broker alone."""
        if broker not in self.row["brokers"] or (role == "board" and broker != "spinal"):
            return (False, False)
        publishers = self.row["publish"]
        if broker == "spinal":
            publishers = self.row.get("spinal_publish", publishers)
        return (role in publishers, role in self.row["subscribe"])

    def text(self, identity: str) -> str:
        """The topic, at the board's own place, with `identity` where an identity belongs."""
        device = self.row.get("board_scope") == "device"
        levels = {
            "scope_level": "device" if device else SCOPE_LEVEL,
            "scope": BOARD if device else SCOPE,
            "device_id": BOARD,
            "identity": identity,
        }
        return re.sub(
            r"\{(\w+)\}", lambda found: levels.get(found[1], found[1]), self.row["template"]
        )


def roles() -> list[str]:
    """Every role of topics.json, those without a topic too."""
    return list(_file()["roles"])


def topics() -> list[Topic]:
    """Every topic of topics.json."""
    return [Topic(row) for row in _file()["topics"]]


def measure(house: House) -> list[Cell]:
    """Let every role publish and read everything on both brokers."""
    actors = {
        role: house.authority.issue(BOARD, role, f"{SCOPE_LEVEL}/{SCOPE}")
        if role == "board"
        else house.authority.issue(f"some-{role}", role)
        for role in roles()
    }
    witness = _issue_witness(house)
    return [cell for broker in BROKERS for cell in _measure(house, broker, actors, witness)]


def render(cells: list[Cell]) -> str:
    """Draw the cells: one table for each broker, a line for each topic, a column for each role."""
    columns = roles()
    lines = ["P may publish, R may read, - may not, ! is not what topics.json says", ""]
    lines += [f"{number:3} {role}" for number, role in enumerate(columns, 1)]
    for broker in BROKERS:
        lines += ["", f"{broker:24}" + "".join(f"{n:4}" for n in range(1, len(columns) + 1))]
        for topic in topics():
            row = {c.role: c for c in cells if (c.broker, c.topic) == (broker, topic.name)}
            lines.append(f"{topic.name:24}" + "".join(f"{row[role]!s:>4}" for role in columns))
    lines += ["", f"{len(cells)} cells, each publishing and reading"]
    for cell in cells:
        if not cell.holds:
            expected = f"expected publish {cell.expected[0]}, read {cell.expected[1]}"
            lines.append(f"! {cell.broker} {cell.topic} {cell.role}: {expected} {cell.wrong}")
    return "\n".join(lines) + "\n"


def _file() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((REPOSITORY / "schemas" / "topics.json").read_text())
    return content


def _issue_witness(house: House) -> Identity:
    """Add one who sees and says everything: what does not reach it reached nobody."""
    witness = house.authority.issue("witness", "diagnostics")
    house.refresh()
    reloads = {broker: house.log(broker).count("Reloading config") for broker in BROKERS}
    for broker in brokers(house.state, house.settings):
        with broker.acl_file.open("a") as file:
            file.write("\nuser witness\ntopic readwrite #\n")
        assert broker.reload()
        eventually(
            lambda name=broker.name: house.log(name).count("Reloading config") > reloads[name]
        )
    return witness


def _measure(
    house: House, broker: BrokerName, actors: Mapping[str, Identity], witness: Identity
) -> Iterator[Cell]:
    rows = topics()
    with ExitStack() as stack:
        seer = stack.enter_context(Peer(house, witness, broker))
        peers = {
            role: stack.enter_context(Peer(house, identity, broker))
            for role, identity in actors.items()
        }
        seer.subscribe("#")
        for peer in peers.values():
            peer.subscribe(*(topic.text("+") for topic in rows))
        codes = {}
        for topic in rows:
            begun = {
                role: peer.begin_publish(topic.text(peer.identity.name), role)
                for role, peer in peers.items()
            }
            for role, number in begun.items():
                codes[topic.name, role] = peers[role].code(number)
            # After every attempt was answered, so that it comes behind whatever one let through.
            seer.publish(topic.text(CONTROL), CONTROL)
        seen = set(seer.settle())
        received = {role: peer.settle() for role, peer in peers.items()}
    for topic in rows:
        told = [role for role in actors if (topic.text(actors[role].name), role) in seen]
        assert (topic.text(CONTROL), CONTROL) in seen, f"{topic.name} has no control"
        for role in actors:
            code = codes[topic.name, role]
            heard = sorted(
                text
                for place, text in received[role]
                if re.fullmatch(re.escape(topic.text("@")).replace("@", "[^/]+"), place)
            )
            yield Cell(
                broker,
                topic.name,
                role,
                topic.expected(role, broker),
                publishes=role in told,
                reads=CONTROL in heard,
                wrong=tuple(_wrong(code, heard, told, role)),
            )


def _wrong(code: int, heard: list[str], told: list[str], role: str) -> Iterator[str]:
    if (code == NOT_AUTHORIZED) is (role in told):
        yield f"reason code {code} for a message that was{'' if role in told else ' not'} delivered"
    if code not in {0x00, 0x10, NOT_AUTHORIZED}:
        yield f"reason code {code}"
    # Whoever reads the control reads everybody who may publish, once; whoever does not, nobody.
    if heard not in ([], sorted([*told, CONTROL])):
        yield f"received {heard}"
