"""The vector matrix: four readings of the wire take and refuse the same messages.

`jsonschema` and `ajv` judge by the schema alone, and JavaScript reads CBOR and Protobuf by itself
for it; `guard` (with the pydantic models) judges all; the `board` (the firmware on MicroPython) all
that can reach it.
"""

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from contract.reference import SCHEMAS, validator
from contract.vectors import (
    FILES,
    HOSTILE,
    MESSAGES,
    SPOILED,
    VECTORS,
    Vector,
    merge,
    packet,
    paths,
)
from nervus.wire import Accepted, Guard, Packet, Rejected
from nervus.wire.contracts import CONTRACTS
from nervus.wire.decode import DecodeError, has_null
from nervus.wire.encodings import CBOR, JSON, PROTOBUF, decode
from nervus.wire.topics import TOPICS
from spinal.contracts import MAX_BYTES as BOARD_TAKES

CHECKOUT = Path(__file__).parents[2]
TOOLS = CHECKOUT / ".tools"
# It compiles the modules itself, which a board's heap has no room for.
BOARD = (TOOLS / "micropython/micropython", "-X", "heapsize=512k")
COLUMNS = ("jsonschema", "guard", "board", "ajv")
OF_EACH = {contract: [*VECTORS[contract], *HOSTILE[contract]] for contract in VECTORS}
ALL = [vector for vectors in OF_EACH.values() for vector in vectors]

pytestmark = pytest.mark.timeout(60)
"""The first test that asks for the readings waits for all four of them."""

Said = dict[str, str]
"""What a reading says of each vector it was given: "taken", or why it refuses."""


def by_jsonschema() -> Said:
    said = {}
    for contract, vectors in VECTORS.items():
        schema = validator(contract)
        for vector in filter(is_json, vectors):
            valid = schema.is_valid(json.loads(vector.data))
            said[str(vector)] = "taken" if valid else "refused"
    return said


def by_guard() -> Said:
    return {str(vector): _judged(vector) for vector in ALL}


def _judged(vector: Vector) -> str:
    if vector.topic is None:
        return _read_over_http(vector)
    guard = Guard(TOPICS, granted=vector.granted.get)
    verdict = guard.judge(vector.packet, vector.now_ms)
    if vector.twice:
        assert isinstance(verdict, Accepted), verdict
        verdict = guard.judge(vector.packet, vector.now_ms)
    return verdict.reason_code if isinstance(verdict, Rejected) else "taken"


def _read_over_http(vector: Vector) -> str:
    try:
        value = decode(vector.data)
    except DecodeError:
        return "decode_error"
    if has_null(vector.data, value):
        return "schema_invalid"
    try:
        CONTRACTS[vector.contract].model_validate(value)
    except ValidationError as error:
        kinds = {each["type"] for each in error.errors()}
        return "expiry_missing" if "expiry" in kinds else "schema_invalid"
    return "taken"


def by_board(folder: Path) -> Said:
    given = [vector for vector in ALL if vector.contract in BOARD_TAKES and reaches_board(vector)]
    cases = folder / "vectors.jsonl"
    cases.write_text("".join(json.dumps(_case(vector)) + "\n" for vector in given))
    run = subprocess.run(
        [*BOARD, Path(__file__).with_name("board_vectors.py"), cases],
        env={**os.environ, "MICROPYPATH": f"{CHECKOUT}/firmware/lib:.frozen"},
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-500:] + run.stderr
    lines = run.stdout.splitlines()
    return {str(vector): line for vector, line in zip(given, lines, strict=True)}


def _case(vector: Vector) -> dict[str, object]:
    return {
        "topic": vector.topic,
        "data": base64.b64encode(vector.data).decode(),
        "retain": vector.retain,
        "now_ms": vector.now_ms,
        "times": 2 if vector.twice else 1,
    }


def by_ajv() -> Said:
    run = subprocess.run(
        ["node", CHECKOUT / "tests/node/vectors.mjs", SCHEMAS],
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said: Said = json.loads(run.stdout)
    return said


def is_json(vector: Vector) -> bool:
    """Whether a schema can be asked: an empty payload has no value, broken JSON neither."""
    return vector.stage != "decode" and bool(vector.data) and vector.encoding == JSON


def reaches_board(vector: Vector) -> bool:
    """A board is on the spinal broker alone and subscribes to its own topics alone."""
    return vector.reason_code not in ("wrong_broker", "legacy_topic", "unknown_topic")


def expected(vector: Vector, column: str) -> str:
    """What a column should say of a vector."""
    if column in ("jsonschema", "ajv"):
        # What is not JSON the second language reads by itself, before ajv is asked.
        return "refused" if vector.stage in ("decode", "schema") else "taken"
    if column == "board" and vector.encoding == PROTOBUF:
        return "unsupported_encoding"
    said = vector.reason_code or "taken"
    if (column, vector.contract, said) == ("board", "EfferentCommand", "retained_event"):
        # The board has a name of its own for the one thing that must never happen.
        return "retained_command"
    return said


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What each of the four says of every vector it can be given."""
    folder = tmp_path_factory.mktemp("vectors")
    # Two of them are processes of their own: they read beside the two of this one.
    with ThreadPoolExecutor() as pool:
        ajv, board = pool.submit(by_ajv), pool.submit(by_board, folder)
        said = by_jsonschema(), by_guard(), board.result(), ajv.result()
    readings = dict(zip(COLUMNS, said, strict=True))
    TOOLS.joinpath("vector-matrix.txt").write_text(matrix(readings))
    return readings


def matrix(readings: dict[str, Said]) -> str:
    """Contract by column: vectors it agrees on, of those it was given."""
    lines = [f"{'':24}" + "".join(f"{column:>12}" for column in COLUMNS)]
    total: Counter[str] = Counter()
    for contract, vectors in OF_EACH.items():
        cells = []
        for column in COLUMNS:
            said = readings[column]
            given = [vector for vector in vectors if str(vector) in said]
            agreed = sum(said[str(vector)] == expected(vector, column) for vector in given)
            total[column] += agreed
            cells.append(f"{agreed}/{len(given)}" if given else "-")
        lines.append(f"{contract:24}" + "".join(f"{cell:>12}" for cell in cells))
    lines.append(f"{'all':24}" + "".join(f"{total[column]:>12}" for column in COLUMNS))
    return "\n".join(lines) + "\n"


def test_the_matrix_of_agreement_is_printed(readings: dict[str, Said]) -> None:
    table = matrix(readings)
    sys.stdout.write(f"\n{table}")
    assert TOOLS.joinpath("vector-matrix.txt").read_text() == table
    assert table.count("\n") == len(CONTRACTS) + 2


@pytest.mark.req("S0-9", "S0-64", "S0-82", "S0-83", "S0-105")
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("contract", sorted(VECTORS))
def test_a_reading_takes_and_refuses_what_the_vectors_say(
    contract: str, column: str, readings: dict[str, Said]
) -> None:
    said = readings[column]
    given = [vector for vector in OF_EACH[contract] if str(vector) in said]
    if column != "board":
        assert given
    if column == "board" and contract in BOARD_TAKES:
        assert len(given) >= 16
    wrong = {
        vector.name: f"{said[str(vector)]}, not {expected(vector, column)}"
        for vector in given
        if said[str(vector)] != expected(vector, column)
    }
    assert wrong == {}


def test_the_files_keep_to_their_form() -> None:
    form = Draft202012Validator(json.loads((SCHEMAS / "vectors/vectors.schema.json").read_text()))
    for name, file in FILES.items():
        form.validate(file)
        assert file["contract"] == name
        names = [row["name"] for row in (*file["valid"], *file["invalid"])]
        assert len(names) == len(set(names)), name


DANGERS = {
    "in CBOR": {
        *("CBOR that ends too early", "CBOR with a byte behind it", "a key twice in CBOR"),
        *("an unknown number for a field", "a name of no field", "bytes where a text stands"),
        *("a list where a text stands", "a key twice, once longer", "NaN in CBOR"),
        *("infinity in CBOR", "seventeen arrays in each other", "a text of an exabyte"),
        *("a list of 129 items", "an unknown number for a name", "an integer of 2^53 in CBOR"),
        *("CBOR of indefinite length", "a tag inside CBOR", "null in CBOR", "no UTF-8 in CBOR"),
        *("an id of 15 bytes", "a float for an integer", "an integer of eight bytes"),
    },
    "in Protobuf": {
        *("an end too early, in Protobuf", "a byte behind it, in Protobuf"),
        *("an unknown field, in Protobuf", "an unknown field in the payload, in Protobuf"),
        *("a field twice, in Protobuf", "a group, in Protobuf", "no UTF-8, in Protobuf"),
        *("a number where a text stands, in Protobuf", "NaN, in Protobuf"),
        *("a double where an integer stands, in Protobuf", "an enum's -1, in Protobuf"),
        "an integer that is longer than it need be, in Protobuf",
        *("a length beyond the end, in Protobuf", "an integer of 2^53, in Protobuf"),
        *("an enum's 0, in Protobuf", "an enum's 99, in Protobuf", "an id missing, in Protobuf"),
    },
}  # fmt: skip


@pytest.mark.parametrize("encoding", DANGERS)
def test_every_contract_is_spoiled_in_the_same_ways(encoding: str) -> None:
    form = json.loads((SCHEMAS / "vectors/hostile.schema.json").read_text())
    Draft202012Validator(form).validate(SPOILED)
    rows = [row for row in SPOILED["vectors"] if row["of"] == encoding]
    ways: dict[str, set[str]] = {}
    for row in rows:
        ways.setdefault(row["name"], set()).update(row["edits"])
    assert {name for name in DANGERS[encoding] if ways[name] != set(CONTRACTS)} == set()
    everywhere = sum(contracts == set(CONTRACTS) for contracts in ways.values())
    assert everywhere >= (75 if encoding == "in CBOR" else 40)
    for contract, vectors in HOSTILE.items():
        bodies = {(vector.data, vector.twice) for vector in vectors}
        assert len(bodies) == len(vectors), contract


@pytest.mark.parametrize("contract", sorted(CONTRACTS))
def test_a_contract_has_four_valid_and_twelve_invalid_vectors(contract: str) -> None:
    stages = Counter(vector.stage for vector in VECTORS[contract])
    assert stages[None] >= 4
    assert stages.total() - stages[None] >= 12
    assert stages["decode"] >= 2
    assert stages["schema"] >= 6
    assert stages["guard"] >= 4 or VECTORS[contract][0].topic is None


@pytest.mark.req("S0-60")
@pytest.mark.parametrize("contract", sorted(CONTRACTS))
def test_a_contract_has_a_vector_in_each_encoding_that_means_what_it_says(contract: str) -> None:
    valid = [vector for vector in VECTORS[contract] if vector.stage is None]
    assert {vector.encoding for vector in valid} == {JSON, CBOR, PROTOBUF}
    assert [v.name for v in valid if decode(v.data) != v.meaning] == []


def test_every_vector_is_another_message() -> None:
    for vectors in VECTORS.values():
        cases = {(v.topic, v.broker, v.retain, v.now_ms, v.data, v.twice) for v in vectors}
        assert len(cases) == len(vectors), vectors[0].contract


@pytest.mark.req("S0-15", "S0-31", "S0-67", "S0-68")
def test_no_field_of_a_media_event_can_hold_a_url() -> None:
    message = MESSAGES["MediaEvent"]
    everything = {"ext": {"a": "b"}, "auth": "x", "principal": "p", "historical": False}
    full = merge(message, {"meta": everything, "errors": [{"code": "c", "message": "m"}]})
    topic = str(FILES["MediaEvent"]["topic"])
    asked = 0
    for path in paths(full):
        changed = merge(message, {})
        if not isinstance(path[-1], str):
            continue
        patch: object = "https://camera.example/clip"
        for key in reversed(path):
            patch = {key: patch} if isinstance(key, str) else [patch]
        sent = packet(topic, merge(changed, patch))
        verdict = Guard(TOPICS).judge(sent, int(message["meta"]["t_ms"]))
        assert isinstance(verdict, Rejected), path
        asked += 1
    assert asked > len(message["meta"]) + len(message["payload"])


def test_a_packet_comes_on_the_broker_of_its_vectors() -> None:
    topic = str(FILES["MediaRegistryState"]["topic"])
    assert packet(topic, {}) == Packet("core", topic, b"{}", retain=True)
