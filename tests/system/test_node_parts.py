"""Parts written in JavaScript, from `schemas/` alone, against the real hub."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nervus.reflect import Quarantine
from nervus.runtime.identity import Identity
from nervus.runtime.state import BrokerName
from nervus.runtime.status import read_status
from nervus.wire import Mint, encode, topics
from nervus.wire.contracts import EfferentCommand, EfferentCommandPayload
from support import DEADLINE_S, DIES_WITH_US, House, eventually, is_up, processes_naming

# Each starts a whole hub, on processors that other tests use too.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("unmeasured")]

ROOT = Path(__file__).resolve().parents[2]
PLACE = "room/kitchen"
LATE = "expired"
"""Why parts refuse what a busy machine brings them late."""
POLICY = """\
[[rule]]
id = "the-lamp"
principals = ["node-app"]
capabilities = ["actuator.*"]
targets = ["node-1/*"]
effect = "allow"
reason = "a lamp harms nobody"
"""


@pytest.mark.parametrize("name", ["board", "consumer"])
def test_a_part_takes_less_than_150_lines(name: str) -> None:
    assert len((ROOT / f"tests/node/{name}.mjs").read_text().splitlines()) < 150


class Part:
    """A program of tests/node that runs as an identity; it prints a JSON object a line."""

    def __init__(
        self, program: Path, identity: Identity, url: str, home: Path, *words: str
    ) -> None:
        number = len(list(home.glob("*.out")))
        self._printed = (home / f"{number}-{program.stem}.out").open("xb")
        self.process = subprocess.Popen(
            [*DIES_WITH_US, "node", str(program), *words],
            cwd=home,
            env={
                "PATH": os.environ["PATH"],
                "NERVUS_BROKER": url,
                "NERVUS_IDENTITY": str(identity.folder),
                "NERVUS_BOARD": str(home),
            },
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )

    def said(self, key: str) -> list[dict[str, Any]]:
        """All it printed about something, in order."""
        text = Path(self._printed.name).read_text()
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        assert all(line.startswith("{") for line in lines), text
        return [told for told in map(json.loads, lines) if key in told]

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """Wait for its end; its status."""
        return self.process.wait(timeout=within_s)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait for its end."""
        self.process.send_signal(number)
        return self.wait()

    def close(self) -> None:
        """Leave nothing of it behind."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self._printed.close()


class Hub:
    """`nervus up`, and parts that have been given schemas, an address and a certificate."""

    def __init__(self, house: House, elsewhere: Path, parts: ExitStack) -> None:
        self.house = house
        self._elsewhere = elsewhere
        self._parts = parts
        house.state.policy_file.write_text(POLICY)
        roles = {"node-app": "consumer", "watcher": "observer"}
        roles |= {"reliable-2": "reliable", "reliable-3": "reliable"}
        self.identities = {name: house.authority.issue(name, role) for name, role in roles.items()}
        for board in ("node-1", "node-2"):
            self.identities[board] = house.authority.issue(board, "board", PLACE)

    def board(self) -> Part:
        """Start the board; online on return."""
        board = self._part("board.mjs", "node-1", "spinal")
        eventually(lambda: bool(board.said("online")))
        return board

    def consumer(self, *action: str) -> Part:
        """Start the consumer; it listens on return."""
        consumer = self._part("consumer.mjs", "node-app", "core", PLACE, *action)
        eventually(lambda: bool(consumer.said("listens")))
        return consumer

    def hostile(self) -> Part:
        """Start the board that lies in the name of the other."""
        return self._part("hostile.mjs", "node-2", "spinal", PLACE, "node-1")

    def rejects(self, reporter: str | None = None) -> dict[str, dict[str, Any]]:
        """What was refused last, by anyone or by one, by reason, as `nervus rejects` reads it."""
        with Quarantine.open(self.house.state.data / "reflect.db") as quarantine:
            latest = quarantine.latest(1000)
        return {
            each.reason_code: asdict(each) for each in latest if reporter in (None, each.reporter)
        }

    def order(self, mint: Mint, action_id: str, old: str = "", new: str = "") -> None:
        """Order the lamp on, past the hub's own reliable; `new` stands for `old` in the text."""
        order = mint.compact(
            EfferentCommand,
            topics.efferent_command("room", "kitchen", "lamp", "node-1", action_id),
            EfferentCommandPayload(actuator="lamp", set=True),
            now_ms(),
            action_id=action_id,
            deadline_ms=5000,
        )
        text = encode(order.message).decode()
        assert old in text
        sender = self.identities["reliable-2"]
        sent = self.house.publish(sender, "spinal", order.address.topic, text.replace(old, new, 1))
        assert sent.returncode == 0, sent.stderr

    def _part(self, program: str, name: str, broker: BrokerName, *words: str) -> Part:
        listener = self.house.settings.brokers.get(broker)
        url = f"mqtts://{listener.connect_host}:{listener.port}"
        path = self._elsewhere / "tests/node" / program
        part = Part(path, self.identities[name], url, self._elsewhere, *words)
        self._parts.callback(part.close)
        return part


@pytest.fixture
def hub(house: House, tmp_path: Path) -> Iterator[Hub]:
    # A folder that holds schemas/ and the parts, and nothing of the hub or of the firmware.
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "schemas", elsewhere / "schemas")
    shutil.copytree(
        ROOT / "tests/node", elsewhere / "tests/node", ignore=lambda *_: {"node_modules"}
    )
    (elsewhere / "tests/node/node_modules").symlink_to(ROOT / "tests/node/node_modules")
    with ExitStack() as parts, (tmp_path / "up.log").open("wb") as log:
        hub = Hub(house, elsewhere, parts)
        command = [sys.executable, "-m", "nervus", "up", "--state", str(house.state.path)]
        up = subprocess.Popen([*DIES_WITH_US, *command], stdout=log, stderr=log)
        try:
            eventually(lambda: is_up(house), within_s=45)
            yield hub
        finally:
            parts.close()
            for listener in house.listeners:
                listener.close()
            up.send_signal(signal.SIGINT)
            assert up.wait(timeout=25) == 0  # it has 8 s for each stage of its children
    assert processes_naming(tmp_path) == []


@pytest.mark.req("S0-2", "S0-8", "S0-9", "S0-43")
def test_what_a_board_in_javascript_senses_arrives_gated_at_a_consumer_in_javascript(
    hub: Hub,
) -> None:
    consumer = hub.consumer()
    board = hub.board()
    eventually(lambda: {"somatic", "visual_orient"} <= {b["channel"] for b in bundles(consumer)})
    temperature, motion = (
        next(each for each in bundles(consumer) if each["channel"] == channel)
        for channel in ("somatic", "visual_orient")
    )
    (feature,) = temperature["bundle"]["summary_features"]
    assert (feature["sensor_type"], feature["device_id"]) == ("temperature", "node-1")
    assert (feature["unit"], feature["count"] >= 1) == ("Cel", True)
    assert 15 <= feature["min"] <= feature["mean"] <= feature["max"] <= 25
    assert temperature["bundle"]["sources"] == ["node-1"]
    assert temperature["priority"] == "normal"
    assert motion["priority"] == "critical"
    assert motion["bundle"]["summary_features"][0]["last"] in {True, False}
    assert board.said("refused") == board.said("trouble") == consumer.said("refused") == []
    assert hub.rejects().keys() <= {LATE}
    assert consumer.end() == 0
    assert board.end() == 0


@pytest.mark.req("S0-2", "S0-6", "S0-9")
def test_a_command_between_two_parts_in_javascript_acts_once_and_has_one_outcome(hub: Hub) -> None:
    board = hub.board()
    consumer = hub.consumer("actuator.set", "node-1/lamp", '{"value": true}')
    assert consumer.wait() == 0
    (requested,) = consumer.said("requested")
    assert [each["action_progress"]["stage"] for each in consumer.said("action_progress")] == [
        "accepted",
        "dispatched",
        "acknowledged",
    ]
    assert [each["outcome"]["status"] for each in consumer.said("outcome")] == ["succeeded"]
    assert board.said("lamp") == [{"lamp": True, "action_id": requested["requested"]}]

    # What the board's birth did not name, nobody is sent.
    refused = hub.consumer("actuator.set", "node-1/heater", '{"value": true}')
    assert refused.wait() == 1
    (outcome,) = refused.said("outcome")
    assert outcome["outcome"]["status"] == "rejected"
    assert [error["category"] for error in outcome["errors"]] == ["not_found"]
    assert len(board.said("lamp")) == 1


@pytest.mark.req("S0-7", "S0-48", "S0-49")
def test_lies_of_a_board_in_javascript_end_in_the_quarantine_and_in_no_bundle(hub: Hub) -> None:
    consumer = hub.consumer()
    hub.hostile()
    eventually(lambda: {"contract_drift", "identity_mismatch"} <= hub.rejects().keys())
    before = len(humidities(consumer))
    eventually(lambda: len(humidities(consumer)) > before + 1)
    true = {each[key] for each in humidities(consumer) for key in ("min", "max", "last")}
    assert true == {50}
    refused = hub.rejects()
    assert refused.keys() - {LATE} == {"contract_drift", "identity_mismatch"}
    topic = topics.afferent("room", "kitchen", "humidity", "node-2").topic
    for reason, stage, source in (
        ("contract_drift", "drift", "device:node-2"),
        ("identity_mismatch", "identity", "device:node-1"),
    ):
        assert (refused[reason]["stage"], refused[reason]["source"]) == (stage, source)
        assert refused[reason]["source_topic"] == topic
        assert refused[reason]["contract"] == "AfferentSignal"


@pytest.mark.req("S0-6")
def test_a_board_in_javascript_that_dies_while_it_acts_does_not_act_again(hub: Hub) -> None:
    watcher = hub.identities["watcher"]
    board = hub.board()
    (first_life,) = board.said("online")
    consumer = hub.consumer("actuator.pulse", "node-1/lamp", '{"pulse_ms": 4000}', "25000")
    eventually(lambda: bool(board.said("lamp")))
    board.end(signal.SIGKILL)
    status = topics.device_status("node-1").topic
    (will,) = hub.house.listen(watcher, "spinal", [status], 1).messages()
    stated = json.loads(will.removeprefix(status))["payload"]
    assert stated == {"status": "offline", "session": first_life["online"]}

    again = hub.board()
    assert consumer.wait(30) == 1
    assert [each["boot"] for each in (*board.said("online"), *again.said("online"))] == [1, 2]
    (outcome,) = consumer.said("outcome")
    assert outcome["outcome"]["status"] == "failed"
    assert [error["code"] for error in outcome["errors"]] == ["interrupted"]
    (requested,) = consumer.said("requested")
    assert board.said("lamp") == [{"lamp": True, "action_id": requested["requested"]}]
    assert again.said("lamp") == []


@pytest.mark.req("S0-6")
def test_a_board_in_javascript_remembers_what_it_did_beyond_its_restart(hub: Hub) -> None:
    mint = Mint("reliable-2", "reliable", seed=1, boot=1)
    action_id = mint.id(now_ms())
    levels = ("room", "kitchen", "lamp", "node-1", action_id)
    reports = hub.house.listen(
        hub.identities["reliable-3"], "spinal", [topics.efferent_report(*levels).topic], 3
    )
    board = hub.board()
    consumer = hub.consumer("actuator.set", "node-1/lamp", '{"value": true}', "10000", action_id)
    assert consumer.wait() == 0
    board.end(signal.SIGKILL)
    again = hub.board()
    # Sent once more, as by a hub that has forgotten the answer, it is answered and not done.
    hub.order(mint, action_id)
    said = [json.loads(line.partition(" ")[2])["payload"] for line in reports.messages()]
    assert [each["status"] for each in said] == ["acknowledged", "succeeded", "succeeded"]
    assert said[1] == said[2]
    assert board.said("lamp") == [{"lamp": True, "action_id": action_id}]
    assert again.said("lamp") == []


def test_a_board_in_javascript_refuses_what_schemas_refuse_and_says_why(hub: Hub) -> None:
    mint = Mint("reliable-2", "reliable", seed=2, boot=1)
    board = hub.board()
    spoiled = {
        "decode_error": ('"set":true', '"set":false,"set":true'),
        "schema_invalid": ('"set":true', '"set":[true]'),
        "contract_drift": ('"message_type":"E', '"message_type":"e'),
        "topic_mismatch": ('"action_id":"0', '"action_id":"1'),
        "expired": ('"ttl_ms":10000', '"ttl_ms":0'),
    }
    for old, new in spoiled.values():
        hub.order(mint, mint.id(now_ms()), old, new)
    eventually(lambda: len(board.said("refused")) == len(spoiled))
    assert [each["refused"]["reason_code"] for each in board.said("refused")] == list(spoiled)
    # Others may refuse meanwhile what a busy machine brings them late.
    eventually(lambda: hub.rejects("device:node-1").keys() == spoiled.keys())
    assert board.said("lamp") == []


def test_a_board_in_javascript_comes_back_when_its_broker_does(hub: Hub) -> None:
    board = hub.board()
    consumer = hub.consumer()
    status = read_status(hub.house.state)
    assert status is not None
    (pid,) = (each["pid"] for each in status["children"] if each["name"] == "broker-spinal")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(board.said("online")) > 1)
    first, second, *_ = board.said("online")
    assert first["online"] != second["online"]
    assert first["boot"] == second["boot"]
    before = len(bundles(consumer))
    eventually(lambda: len(bundles(consumer)) > before)


def test_lock_of_the_packages_names_versions_and_hashes_and_no_address() -> None:
    lock = json.loads((ROOT / "tests/node/package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    manifest = json.loads((ROOT / "tests/node/package.json").read_text())
    wanted = manifest["dependencies"]
    assert wanted == {name: packages[f"node_modules/{name}"]["version"] for name in wanted}
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not [name for name, entry in packages.items() if {"resolved", "funding"} & entry.keys()]
    scripts = [name for name, entry in packages.items() if entry.get("hasInstallScript")]
    assert scripts == ["node_modules/@scarf/scarf"]
    assert manifest["scarfSettings"] == {"enabled": False}
    # To npm 9, which Debian 12 has, a lock with another package in one's place is none.
    assert not [version for version in manifest["overrides"].values() if ":" in version]


def test_setup_notices_a_changed_lock_of_the_packages(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / ".tools/stamps", tmp_path / ".tools/stamps")
    (tmp_path / "tests/node/node_modules").mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests/node" / name, tmp_path / "tests/node")
    assert "Node's packages" not in _plan(tmp_path, "--test")
    with (tmp_path / "tests/node/package-lock.json").open("a") as lock:
        lock.write("\n")
    assert "Node's packages" in _plan(tmp_path, "--test")
    assert "Node's packages" not in _plan(tmp_path)


def bundles(consumer: Part) -> list[dict[str, Any]]:
    """What passed the gate, one entry for each bundle, with the levels of its topic."""
    found = consumer.said("bundle")
    assert all((each["scope_level"], each["scope"]) == ("room", "kitchen") for each in found)
    return found


def humidities(consumer: Part) -> list[dict[str, Any]]:
    """The statistics of humidity in all bundles so far."""
    features = [f for each in bundles(consumer) for f in each["bundle"]["summary_features"]]
    return [feature for feature in features if feature["sensor_type"] == "humidity"]


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _plan(root: Path, *options: str) -> str:
    command = [str(root / "tools/setup"), "--plan", *options]
    told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return told.stdout
