"""The guard under a coverage-guided fuzzer: `guard_target.py [libFuzzer's options]`.

One input is a number of a topic (two bytes) and a payload. The corpus is what the vectors hold.
Every input is judged twice by a guard that has seen nothing; an AssertionError, any other exception
and a judgement of more than 2 s end the run with an error and the input in a file `crash-…`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nervus.wire"]):
    from nervus.wire import Accepted, Guard, Packet, Rejected, Removed
    from nervus.wire.encodings import JSON, decode, told_by
    from nervus.wire.narrow import Narrow
    from nervus.wire.route import route
    from nervus.wire.topics import TOPICS
    from nervus.wire.usual import Habit

from contract.reference import validator
from contract.vectors import FILES, NOW_MS, VECTORS, Vector

_HEAD = 2
_SLOW_SHARE = 16
"""One input of so many is put to what takes a hundred times as long as the guard."""


def _usual(vector: Vector) -> tuple[Narrow | None, bool]:
    """What is usual where messages like this one have come for a while, and what it states."""
    way = route(vector.broker, vector.topic, vector.retain)
    assert way is not None
    for _ in range(8):
        Guard(TOPICS, granted=vector.granted.get).judge(vector.packet, vector.now_ms)
    return way.usual, way.states


_GIVEN = [vector for vectors in VECTORS.values() for vector in vectors if vector.topic]
_PLACES = sorted({(v.broker, v.topic, v.retain) for v in _GIVEN})
_GUARD = Guard(TOPICS)
_NOTHING = None, False
_USUAL = {
    (vector.broker, vector.topic, vector.retain): _usual(vector)
    for vector in reversed(_GIVEN)
    if vector.stage is None and vector.encoding == JSON
}
_REFERENCES = {name: validator(name) for name in FILES}


def judge(data: bytes) -> None:
    """One input; raises AssertionError when the guard lets pass what it must not."""
    at = int.from_bytes(data[:_HEAD], "big") % len(_PLACES)
    packet = Packet(*_PLACES[at][:2], data[_HEAD:], _PLACES[at][2])
    _GUARD._newer.clear()  # as a new one, which takes longer to make than to ask
    _expect(packet, *_USUAL.get(_PLACES[at], _NOTHING))
    verdict = _GUARD.judge(packet, NOW_MS)
    slowly = zlib.crc32(data) % _SLOW_SHARE == 0
    if slowly:
        _expect(packet, *_NOTHING)
        _GUARD._newer.clear()
        assert verdict == _GUARD.judge(packet, NOW_MS), "what is usual decides"
    if isinstance(verdict, Rejected):
        assert not slowly or verdict.sample.isprintable()
        return
    again = _GUARD.judge(packet, NOW_MS)
    if isinstance(verdict, Removed) or packet.retain:
        assert again == verdict, "a state is taken as often as it comes"
        return
    assert isinstance(again, Rejected), "it passed twice"
    assert again.reason_code == "duplicate"
    if slowly:
        _must_be_valid(verdict, packet.payload)


def _expect(packet: Packet, usual: Narrow | None, states: bool) -> None:  # noqa: FBT001 - as kept
    """Let this be usual where the packet comes from, whatever came before."""
    way = route(packet.broker, packet.topic, packet.retain)
    if way is not None:
        way.usual, way.states, way.habit = usual, states, Habit()


def _must_be_valid(verdict: Accepted, payload: bytes) -> None:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        assert len(found) == len(pairs), "a key twice"
        return found

    message = decode(payload)
    if told_by(payload) == JSON:
        # Read by another hand than the guard's.
        message = json.loads(payload, object_pairs_hook=once, parse_constant=_no_constant)
    fault = next(_REFERENCES[verdict.address.spec.contract].iter_errors(message), None)
    assert fault is None, fault


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no number")


def main() -> None:
    """Run libFuzzer on the vectors, and on what the options add."""
    with tempfile.TemporaryDirectory(prefix="nervus-fuzz-") as folder:
        for number, vector in enumerate(_GIVEN):
            place = _PLACES.index((vector.broker, vector.topic, vector.retain))
            Path(folder, f"{number}").write_bytes(place.to_bytes(_HEAD, "big") + vector.data)
        atheris.Setup([sys.argv[0], "-timeout=2", "-max_len=8300", *sys.argv[1:], folder], judge)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
