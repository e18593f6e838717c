"""schemas/vectors/hostile.json: every contract's valid CBOR and Protobuf, spoiled in known ways.

A vector of a contract is one or two edits to the bytes of its valid one: [at, cut, hex], which
puts `hex` in place of `cut` bytes at `at` of the bytes as they were.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from generator import hostile_cbor, hostile_protobuf
from generator.hostile_kinds import Kind, Spoiled
from generator.schemas import SchemaError, Schemas

DESCRIPTION: Final = (
    "What is wrong with bytes alone, for every contract; written by tools/generate. A vector is "
    "the valid one named by `of` in the contract's own file after `edits`, each [at, cut, hex]: "
    "`hex` in place of `cut` bytes at `at`, counted in the bytes as they were."
)
_ENCODINGS: Final = (("in CBOR", hostile_cbor.spoiled), ("in Protobuf", hostile_protobuf.spoiled))
_SAME: Final = 8
_HEAD: Final = 4

Edit = tuple[int, int, str]
Said = tuple[str, str, str | None, str | None, bool]
"""What the contracts share of a vector: name, of, stage, reason code, whether it comes twice."""


def generate(schemas: Schemas, folder: Path) -> str:
    """The text of hostile.json, from the valid vectors in `folder`."""
    vectors: dict[Said, dict[str, list[Edit]]] = {}
    for contract in schemas.contracts:
        seen = set()
        for of, valid, each in _of_contract(schemas, contract, folder):
            if each.name in seen:
                raise SchemaError(f"{contract}: two hostile vectors are called {each.name}")
            seen.add(each.name)
            row = (each.name, of, each.stage, each.reason_code, each.twice)
            vectors.setdefault(row, {})[contract] = _edits(valid, each.data)
    rows = [json.dumps(_row(row, edits)) for row, edits in vectors.items()]
    head = f'{{\n  "description": {json.dumps(DESCRIPTION)},\n  "vectors": [\n    '
    return head + ",\n    ".join(rows) + "\n  ]\n}\n"


def _of_contract(
    schemas: Schemas, contract: str, folder: Path
) -> Iterator[tuple[str, bytes, Spoiled]]:
    file = json.loads((folder / f"{contract}.json").read_text())
    kind = Kind(schemas, contract, "topic" in file, file.get("retain", False))
    for of, spoil in _ENCODINGS:
        (valid,) = (bytes.fromhex(row["hex"]) for row in file["valid"] if row["name"] == of)
        for each in spoil(valid, kind):
            yield of, valid, each


def _row(said: Said, edits: dict[str, list[Edit]]) -> dict[str, Any]:
    name, of, stage, reason_code, twice = said
    row: dict[str, Any] = {"name": name, "of": of}
    if stage is not None:
        row |= {"stage": stage, "reason_code": reason_code}
    return row | ({"twice": True} if twice else {}) | {"edits": edits}


def _edits(before: bytes, after: bytes) -> list[Edit]:
    """The edits that make `after` of `before`: a count stands far from what it counts."""
    start = _common(before, after)
    old, new = before[start:], after[start:]
    end = _common(old[::-1], new[::-1])
    old, new = old[: len(old) - end], new[: len(new) - end]
    for cut, put in ((cut, put) for cut in range(_HEAD) for put in range(_HEAD)):
        same = _common(old[cut:], new[put:])
        if same >= _SAME:
            far = start + cut + same
            return [
                (start, cut, new[:put].hex()),
                (far, len(old) - cut - same, new[put + same :].hex()),
            ]
    return [(start, len(old), new.hex())] if old or new else []


def _common(one: bytes, other: bytes) -> int:
    most = min(len(one), len(other))
    return next((i for i in range(most) if one[i] != other[i]), most)
