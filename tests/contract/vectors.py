"""The vectors of schemas/vectors, as packets and messages, and ways to spoil a message."""

import base64
import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from nervus import resources
from nervus.wire import Packet, unix_ms
from nervus.wire.encodings import told_by

Message = dict[str, Any]
Broker = Literal["spinal", "core"]

FOLDER = resources.find("schemas") / "vectors"


@dataclass(frozen=True)
class Vector:
    """One case; a valid one has neither stage nor reason_code, HTTP contracts have no topic."""

    contract: str
    name: str
    stage: str | None
    reason_code: str | None
    topic: str | None
    broker: Broker
    retain: bool
    now_ms: int
    data: bytes
    encoding: str
    meaning: Message | None
    twice: bool
    granted: dict[str, str]
    edited: bool

    @property
    def packet(self) -> Packet:
        assert self.topic is not None
        return Packet(self.broker, self.topic, self.data, self.retain)

    def __str__(self) -> str:
        return f"{self.contract}: {self.name}"


def merge(target: object, patch: object) -> Any:
    """A JSON Merge Patch (RFC 7396): null removes, an object goes on, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def _vectors(file: Message, rows: Iterable[Message]) -> Iterator[Vector]:
    for row in rows:
        if "text" in row:
            data = row["text"].encode()
        elif "base64" in row:
            data = base64.b64decode(row["base64"])
        elif "hex" in row:
            data = bytes.fromhex(row["hex"])
        else:
            message = merge(file["message"], row.get("patch", {}))
            data = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        given = file | row
        yield Vector(
            contract=file["contract"],
            name=row["name"],
            stage=row.get("stage"),
            reason_code=row.get("reason_code"),
            topic=given.get("topic"),
            broker=given.get("broker", "core"),
            retain=given.get("retain", False),
            now_ms=unix_ms(given["now"]),
            data=data,
            encoding=told_by(data),
            meaning=merge(file["message"], row.get("patch", {})) if "stage" not in row else None,
            edited="edits" in row,
            twice=row.get("twice", False),
            granted=file.get("granted", {}),
        )


def _hostile(contract: str, file: Message) -> Iterator[Message]:
    """The rows of hostile.json for a contract, each with its bytes."""
    valid = {row["name"]: bytes.fromhex(row["hex"]) for row in file["valid"] if "hex" in row}
    for row in SPOILED["vectors"]:
        if contract in row["edits"]:
            yield row | {"hex": _edited(valid[row["of"]], row["edits"][contract]).hex()}


def _edited(data: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    for at, cut, put in reversed(edits):
        data = data[:at] + bytes.fromhex(put) + data[at + cut :]
    return data


SPOILED: Message = json.loads((FOLDER / "hostile.json").read_text())
FILES: dict[str, Message] = {
    path.stem: json.loads(path.read_text())
    for path in sorted(FOLDER.glob("*.json"))
    if path.name != "hostile.json" and not path.name.endswith(".schema.json")
}
VECTORS: dict[str, list[Vector]] = {
    name: list(_vectors(file, (*file["valid"], *file["invalid"]))) for name, file in FILES.items()
}
HOSTILE: dict[str, list[Vector]] = {
    name: list(_vectors(file, _hostile(name, file))) for name, file in FILES.items()
}
"""Bytes spoiled by tools/generate, for the matrix alone."""
MESSAGES: dict[str, Message] = {name: file["message"] for name, file in FILES.items()}
VALID: dict[str, tuple[str, Message]] = {
    name: (file["topic"], file["message"]) for name, file in FILES.items() if "topic" in file
}
NOW_MS = unix_ms(FILES["AfferentSignal"]["now"])
_BROKERS: dict[str, Broker] = {
    file["topic"]: file["broker"] for file in FILES.values() if "topic" in file
}


def packet(topic: str, message: object) -> Packet:
    """The message as it would arrive on the broker it belongs to."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    usual: Broker = "spinal" if topic.startswith("/sc/") else "core"
    return Packet(_BROKERS.get(topic, usual), topic, data, retain="/state/" in topic)


def valid(contract: str, /, **meta: object) -> Packet:
    """The valid message of a contract, with metadata fields replaced."""
    topic, message = VALID[contract]
    message = copy.deepcopy(message)
    message["meta"] |= meta
    return packet(topic, message)


def spoiled(message: Message) -> Iterator[tuple[str, Message]]:
    """Every message that differs in one place: a field gone, foreign, null or of another kind."""
    for path in list(paths(message)):
        for name, value in _REPLACEMENTS.items():
            changed = copy.deepcopy(message)
            *parents, last = path
            parent: Any = changed
            for key in parents:
                parent = parent[key]
            if name == "gone":
                del parent[last]
            elif parent[last] == value:
                continue
            else:
                parent[last] = value
            yield f"{'.'.join(map(str, path))} {name}", changed
        if isinstance(_at(message, path), dict):
            changed = copy.deepcopy(message)
            _at(changed, path)["unheard_of"] = 1
            yield f"{'.'.join(map(str, path))} with a foreign field", changed


_REPLACEMENTS: dict[str, object] = {
    "gone": None,
    "null": None,
    "an empty text": "",
    "a long text": "x" * 600,
    "a control character": "a\x00b",
    "a line break behind it": "a\n",
    "a negative": -1,
    "a huge number": 9.9e20,
    "a half": 0.5,
    "true": True,
    "an empty list": [],
    "an empty object": {},
}


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field and item below a value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, child in items:
        yield (*path, key)
        yield from paths(child, (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value
