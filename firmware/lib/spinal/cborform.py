"""AfferentSignals as CBOR by template: one buffer, in which only what changes is written.

Integers that change have a fixed width, so nothing behind them ever moves; RFC 8949, section 4.1
lets a writer do that. The numbers of the fields are those of schemas/ (see `spinal.cbor_tables`,
which is not loaded for this).
"""

import struct
from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from spinal.clock import Clock
    from spinal.ids import MessageIds

CLOCKS = {"hub": 1, "ntp": 2, "none": 3}
PRIORITIES = {"control": 1, "critical": 2, "normal": 3, "background": 4}

_START = b"\xd9\xd9\xf7\xa2\x02"  # tag 55799, a map of two, under 2 the metadata
_COUNT_AT = len(_START)
_ID_AT = _COUNT_AT + 3  # behind the head of the metadata, 1 and the head of 16 bytes
_CONTRACT = b"\x02\x01\x03\x01\x04\x01\x05"  # v1, AfferentSignal twice, 5 is the source
_VIEWS = 16
_HISTORICAL = b"\x0f\xf5"
_FIELDS = 0xA0 | 10  # a map of ten, without a priority
_VALUE_WIDTH = 9
_TENTH = 0.1
_SHORT_FLOATS = struct.unpack(">f", struct.pack(">f", _TENTH))[0] == _TENTH
_FLOAT = ">Bf" if _SHORT_FLOATS else ">Bd"
_FLOAT_HEAD = 0xFA if _SHORT_FLOATS else 0xFB
_SMALL = 1 << 29  # beyond it an integer of a board is no small one


class Afferents:
    """The templates of one board. source: as in the metadata; boot: of this boot."""

    def __init__(self, source: str, boot: int, ids: "MessageIds", clock: "Clock") -> None:
        self._form = _Form(_text(source) + b"\x06" + _integer(boot))
        self._source = source
        self._boot = boot
        self._ids = ids
        self._clock = clock
        self._tails: dict[str | None, dict[str, tuple[Any, ...]]] = {}

    def build(  # noqa: PLR0917 - each is a field of the message
        self,
        sensor_type: str,
        value: object,
        unit: str | None,
        ticks_ms: int,
        ttl_ms: int,
        priority: str | None,
        seq: int,
    ) -> "memoryview | bytes":
        """Return the message; a view is good until the next call. ValueError as for JSON."""
        self._clock.read(ticks_ms)
        if isinstance(value, float):
            if not isfinite(value):
                raise ValueError(f"{value} is no number of a message")
        elif not isinstance(value, bool) and not (
            isinstance(value, int) and -_SMALL < value < _SMALL
        ):
            return self._whole(sensor_type, value, unit, ttl_ms, priority, seq)
        tail = self._tail(sensor_type, unit, ttl_ms, priority)
        return self._form.fill(self._ids, self._clock, seq, priority, tail, value)

    def _tail(self, sensor_type: str, unit: str | None, ttl_ms: int, priority: str | None) -> bytes:
        """What stands between the time and the value, made when it is first asked for."""
        tails = self._tails.get(priority)
        if tails is None:
            tails = {}
            self._tails[priority] = tails
        kept = tails.get(sensor_type)
        if kept is None or kept[0] != unit or kept[1] != ttl_ms:
            text = b"\x0a" + _integer(ttl_ms)
            if priority is not None:
                text += bytes((12, PRIORITIES[priority]))
            text += b"\x03" + (b"\xa2" if unit is None else b"\xa3") + b"\x01" + _text(sensor_type)
            if unit is not None:
                text += b"\x03" + _text(unit)
            kept = unit, ttl_ms, text + b"\x02"
            tails[sensor_type] = kept
        tail: bytes = kept[2]
        return tail

    def _whole(
        self,
        sensor_type: str,
        value: object,
        unit: str | None,
        ttl_ms: int,
        priority: str | None,
        seq: int,
    ) -> bytes:
        """A message whose value has no fixed width: a text, an object, a large integer."""
        from spinal import cbor  # noqa: PLC0415 - numbers do not need it

        meta: dict[str, Any] = {
            "message_id": self._ids.next(),
            "schema_version": "v1",
            "contract": "AfferentSignal",
            "message_type": "AfferentSignal",
            "source": self._source,
            "boot": self._boot,
            "seq": seq,
            "t_ms": self._clock.now_read(),
            "clk": self._clock.clk,
            "ttl_ms": ttl_ms,
        }
        if priority is not None:
            meta["priority"] = priority
        payload: dict[str, Any] = {"sensor_type": sensor_type, "value": value}
        if unit is not None:
            payload["unit"] = unit
        return cbor.dumps({"meta": meta, "payload": payload})


class _Form:
    """A board's measurement in one buffer for all its sensors."""

    def __init__(self, head: bytes) -> None:
        text = _START + bytes((_FIELDS, 1, 0x50)) + bytes(16) + _CONTRACT + head + b"\x07\x1a"
        self._seq_at = len(text)
        text += bytes(4) + b"\x08\x1b"
        self._time_at = len(text)
        text += bytes(8) + b"\x09"
        self._clk_at = len(text)
        self._buffer = bytearray(text + b"\x00")
        self._tail_at = len(self._buffer)
        self._tail = b""
        self._value_at = self._tail_at
        self._views: dict[int, memoryview] = {}

    def fill(
        self,
        ids: "MessageIds",
        clock: "Clock",
        seq: int,
        priority: str | None,
        tail: bytes,
        value: "Any",
    ) -> memoryview:
        if tail is not self._tail:
            self._take(tail, priority)
        buffer = self._buffer
        ids.write_bytes(buffer, _ID_AT)
        at = self._seq_at
        buffer[at] = seq >> 24 & 255
        buffer[at + 1] = seq >> 16 & 255
        buffer[at + 2] = seq >> 8 & 255
        buffer[at + 3] = seq & 255
        self._write_time(clock.high, clock.low)
        buffer[self._clk_at] = CLOCKS[clock.clk]
        size = self._write_value(value)
        view = self._views.get(size)
        if view is None:
            # As for JSON: a view costs heap, and only a few lengths occur.
            if len(self._views) == _VIEWS:
                self._views.clear()
            view = memoryview(buffer)[:size]
            self._views[size] = view
        return view

    def _take(self, tail: bytes, priority: str | None) -> None:
        at = self._tail_at
        self._value_at = at + len(tail)
        if self._value_at + _VALUE_WIDTH > len(self._buffer):
            self._buffer = self._buffer[:at] + tail + bytes(_VALUE_WIDTH)
            self._views = {}
        else:
            self._buffer[at : self._value_at] = tail
        self._buffer[_COUNT_AT] = _FIELDS if priority is None else _FIELDS + 1
        self._tail = tail

    def _write_time(self, high: int, low: int) -> None:
        # high * 10**9 + low in two parts, since the whole is no small integer on a board:
        # 10**9 is 15258 * 2**16 + 51712.
        last = high * 51712 + (low & 0xFFFF)
        first = high * 15258 + (low >> 16) + (last >> 16)
        buffer = self._buffer
        at = self._time_at
        buffer[at + 2] = first >> 24 & 255
        buffer[at + 3] = first >> 16 & 255
        buffer[at + 4] = first >> 8 & 255
        buffer[at + 5] = first & 255
        buffer[at + 6] = last >> 8 & 255
        buffer[at + 7] = last & 255

    def _write_value(self, value: "Any") -> int:
        """Write a number or a switch at the end; the size of the message."""
        buffer = self._buffer
        at = self._value_at
        if isinstance(value, float):
            struct.pack_into(_FLOAT, buffer, at, _FLOAT_HEAD, value)
            return at + (5 if _SHORT_FLOATS else 9)
        if isinstance(value, bool):
            buffer[at] = 0xF5 if value else 0xF4
            return at + 1
        kind = 0
        if value < 0:
            kind = 0x20
            value = -1 - value
        if value < 24:  # noqa: PLR2004 - RFC 8949, section 3: below, it stands in the head
            buffer[at] = kind | value
            return at + 1
        buffer[at] = kind | 0x1A
        buffer[at + 1] = value >> 24 & 255
        buffer[at + 2] = value >> 16 & 255
        buffer[at + 3] = value >> 8 & 255
        buffer[at + 4] = value & 255
        return at + 5


def mark_historical(data: bytes) -> bytes:
    """Return the message marked `historical: true`; all else stays as it was."""
    at = _COUNT_AT + 1
    if data[at : at + 2] == _HISTORICAL:
        return data
    return data[:_COUNT_AT] + bytes((data[_COUNT_AT] + 1,)) + _HISTORICAL + data[at:]


def _integer(value: int) -> bytes:
    if value < 24:  # noqa: PLR2004 - as above
        return bytes((value,))
    return (
        b"\x19" + struct.pack(">H", value)
        if value < 1 << 16
        else b"\x1a" + struct.pack(">I", value)
    )


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 24:  # noqa: PLR2004 - as above
        return bytes((0x60 | len(data),)) + data
    return bytes((0x78, len(data))) + data
