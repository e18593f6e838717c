import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from support import House

# Two brokers, and an interpreter with its MQTT client, to start on a busy machine.
pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[2]


def snippet(name: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(
        rf"<!-- snippet: {re.escape(name)} -->\n```\w+\n(.*?)\n```\n", text, re.DOTALL
    )
    assert found, f"README.md has no snippet {name}"
    return found[1]


@pytest.mark.req("S0-2")
@pytest.mark.parametrize(
    ("name", "interpreter", "features"),
    [
        ("consumer.py", (sys.executable, "-W", "error"), "[{'sensor_type': 'temperature'}]"),
        ("consumer.mjs", ("node",), "[ { sensor_type: 'temperature' } ]"),
    ],
)
def test_consumer_of_the_readme_reads_what_passed_the_gate(
    running_house: House, tmp_path: Path, name: str, interpreter: tuple[str, ...], features: str
) -> None:
    running_house.join("lamp-logic", "consumer")
    relay = running_house.join("relay-1", "relay")
    program = tmp_path / name
    program.write_text(snippet(name), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/node/node_modules")
    # It knows the state folder and nothing of us: an MQTT client, topics and JSON are all it has.
    assert "nervus" not in re.sub(r'"[^"]*"|`[^`]*`', "", program.read_text(encoding="utf-8"))
    topic = "/th/relay/event/room/kitchen/channel/somatic"
    bundle = {"meta": {}, "payload": {"summary_features": [{"sensor_type": "temperature"}]}}
    with subprocess.Popen(
        [*interpreter, program, str(running_house.settings.brokers.core.port)],
        cwd=tmp_path,
        env={**os.environ, "NERVUS_STATE": str(running_house.state.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as consumer:
        assert consumer.stdout is not None
        try:
            # An event is not kept for those who come later, so it is sent until it is read.
            while not select.select([consumer.stdout], [], [], 0.1)[0]:
                published = running_house.publish(relay, "core", topic, json.dumps(bundle))
                assert published.returncode == 0, published.stderr
            assert consumer.stdout.readline() == f"{topic} {features}\n"
        finally:
            consumer.terminate()


@pytest.mark.parametrize("name", ["consumer.py", "consumer.mjs"])
def test_consumer_of_the_readme_is_ten_lines_long(name: str) -> None:
    assert len([line for line in snippet(name).splitlines() if line.strip()]) <= 10
