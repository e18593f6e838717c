"""Desired reflexes on disk: `reflexes/<device_id>/<reflex_id>.json`, one ReflexConfigure each."""

import json
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from nervus.errors import NervusError
from nervus.reliable.reflexes import DesiredReflex, Key
from nervus.wire.contracts import ReflexConfigurePayload
from nervus.wire.decode import DecodeError, decode, has_null
from nervus.wire.topic import LevelError, unlevel

FILE_LIMIT: Final = 8_192
"""Bytes of the largest rule file that is read."""


class ReflexFileError(NervusError):
    """A rule file is wrong; names the file and the rule it breaks."""


@dataclass(frozen=True, slots=True)
class ReflexFolder:
    """What a folder says: the rules that are right, and what is wrong with the others.

    governed: boards that have a folder; it names all their rules, so an empty one means none.
    spared: rules whose files are there and wrong.
    """

    reflexes: dict[Key, DesiredReflex]
    errors: tuple[ReflexFileError, ...]
    governed: frozenset[str] = frozenset()
    spared: frozenset[Key] = frozenset()


def load(folder: Path) -> ReflexFolder:
    """Read all rules; a wrong one is an error in the result and takes nothing from the others.

    Folder and file names are topic levels, percent-encoded where need be. A missing folder has no
    rules.
    """
    reflexes: dict[Key, DesiredReflex] = {}
    errors: list[ReflexFileError] = []
    governed: set[str] = set()
    spared: set[Key] = set()
    # The folders first: a rule whose folder vanishes meanwhile is then at most not yet removed.
    for path in sorted(folder.glob("*/")):
        with suppress(LevelError):  # told of with each of its files
            governed.add(unlevel(path.name))
    for path in sorted(folder.glob("*/*.json")):
        try:
            key = _key(path)
        except ReflexFileError as error:
            errors.append(error)
            continue
        try:
            reflexes[key] = _load_file(path, key)
        except ReflexFileError as error:
            errors.append(error)
            spared.add(key)
    return ReflexFolder(reflexes, tuple(errors), frozenset(governed), frozenset(spared))


def rule_hash(payload: dict[str, Any]) -> str:
    """The name of a rule's content, as the board computes it (`spinal.rule.rule_hash`).

    The first 16 hexadecimal digits of SHA-256 over canonical JSON: sorted keys, no blanks, floats
    as `%.6g`, since a board's floats may have 32 bits.
    """
    return sha256(_canonical(payload).encode()).hexdigest()[:16]


def _key(path: Path) -> Key:
    try:
        return unlevel(path.parent.name), unlevel(path.stem)
    except LevelError as error:
        raise ReflexFileError(f"not the name of a topic level: {error}", where=str(path)) from error


def _load_file(path: Path, key: Key) -> DesiredReflex:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReflexFileError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if len(data) > FILE_LIMIT:
        raise ReflexFileError(f"{len(data)} bytes, at most {FILE_LIMIT} are read", where=str(path))
    try:
        value = decode(data)
        payload = ReflexConfigurePayload.model_validate(value)
    except DecodeError as error:
        raise ReflexFileError(f"not strict JSON: {error}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        rule = ".".join(str(part) for part in first["loc"]) or "the rule"
        raise ReflexFileError(
            f"{rule}: {first['msg']}",
            where=str(path),
            hint="schemas/contracts/ReflexConfigure.schema.json says what a rule is",
        ) from error
    if has_null(data, value):
        raise ReflexFileError("null is never a value: leave the field out", where=str(path))
    if payload.reflex_id != key[1]:
        raise ReflexFileError(
            f"reflex_id: is {payload.reflex_id!r}, the file's name says {key[1]!r}",
            where=str(path),
            hint="give both the same name",
        )
    if payload.removed is not None:
        raise ReflexFileError(
            "removed: a file is a rule", where=str(path), hint="delete the file to remove the rule"
        )
    content = payload.model_dump(by_alias=True, exclude_none=True)
    return DesiredReflex(payload, rule_hash(content))


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_canonical(each) for each in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)
