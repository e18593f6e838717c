"""The compact envelope: how a board writes messages, and how it reads those for it.

What `afferent` returns lies in a buffer that the next message overwrites: send it or copy it
(`bytes(view)`, as the outbox does) before anything else is built.
"""

from hashlib import sha256

from spinal.contracts import SCHEMAS, TABLE
from spinal.jsonprint import dumps, number, quoted
from spinal.jsonscan import JSONError, loads
from spinal.schema import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from spinal.clock import Clock
    from spinal.ids import MessageIds

SIZE_LIMIT = 4096
"""Bytes of the largest message a board reads or writes."""
VERSION = "v1"

_NO_EXPIRY = (("/meta/ttl_ms", "required"), ("/meta/expires_at", "required"))
_CBOR = 0xD9  # first byte of tag 55799, by which the wire tells it
_PROTOBUF = 0x12  # … and of a message whose first field is meta
_CONTENT_TYPES = ("application/json", "application/cbor", "application/x-protobuf")
_ID_AT = 23  # behind {"meta":{"message_id":"
_SEQ_WIDTH = 10
_TIME_WIDTH = 13
_CLK_WIDTH = 6  # of "none"
_HASH_BYTES = 8
_NUMBERS = (float, int)
_VIEWS = 16
_HISTORICAL = b',"historical":true'
_META_END = b'},"payload":'


class WireError(Exception):
    """A message was refused; code and stage are those of a RejectEvent, the text says why.

    meta is the metadata as far as it could be read, else None.
    """

    def __init__(
        self, code: str, stage: str, text: str, meta: "dict[str, Any] | None" = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.stage = stage
        self.text = text
        self.meta = meta


class Envelope:
    """Builds the messages of one board: one id sequence, one seq over all contracts.

    encoding: of the measurements, "json" or "cbor"; all else is JSON.
    """

    def __init__(
        self,
        device_id: str,
        boot: int,
        ids: "MessageIds",
        clock: "Clock",
        encoding: str = "json",
    ) -> None:
        self.last_seq = -1
        """The seq of the message built last."""
        self._ids = ids
        self._clock = clock
        source = quoted("device:" + device_id)
        self._source = f',"source":{source},"boot":{boot},"seq":'
        self._form: _Form | None = None
        self._tails: dict[str | None, dict[str, tuple[Any, ...]]] = {}
        self._cbor: Any = None
        if encoding == "cbor":
            from spinal.cborform import Afferents  # noqa: PLC0415 - others keep the heap it takes

            self._cbor = Afferents("device:" + device_id, boot, ids, clock)

    def build(  # noqa: PLR0913, PLR0917 - each is one optional field of the metadata
        self,
        contract: str,
        payload: "dict[str, Any]",
        ticks_ms: int,
        ttl_ms: int | None = None,
        action_id: str | None = None,
        deadline_ms: int | None = None,
        priority: str | None = None,
        historical: bool = False,  # noqa: FBT001, FBT002 - a field of the metadata
        t_ms: int | None = None,
        clk: str | None = None,
    ) -> bytes:
        """Return a message as JSON; ticks_ms is when it was produced, now or earlier.

        t_ms and clk together replace the time of ticks_ms. ValueError for what JSON cannot say
        and for messages over 4096 bytes.
        """
        if t_ms is None or clk is None:
            t_ms, clk = self._clock.now(ticks_ms)
        body = dumps(payload)
        seq = self.last_seq + 1
        parts = [
            '{"meta":{"message_id":"',
            self._ids.next(),
            _contract(contract),
            self._source,
            str(seq),
            _time(t_ms, clk),
            _options(ttl_ms, action_id, deadline_ms, priority),
            ',"historical":true' if historical else "",
            '},"payload":',
            body,
            "}",
        ]
        data = "".join(parts).encode()
        if len(data) > SIZE_LIMIT:
            raise ValueError(f"{contract}: {len(data)} bytes, at most {SIZE_LIMIT} can be sent")
        self.last_seq = seq
        return data

    def afferent(
        self,
        sensor_type: str,
        value: object,
        unit: str | None,
        ticks_ms: int,
        ttl_ms: int,
        priority: str | None = None,
    ) -> "memoryview | bytes":
        """Return an AfferentSignal, mostly as a view that is good until the next call.

        A sensor keeps its unit and ttl_ms: they are written once. ValueError for a value that is
        no JSON, such as NaN; no seq is used up then.
        """
        if self._cbor is not None:
            seq = self.last_seq + 1
            data = self._cbor.build(sensor_type, value, unit, ticks_ms, ttl_ms, priority, seq)
            self.last_seq = seq
            return data  # type: ignore[no-any-return] # Afferents.build says what it is
        tail = self._tail(sensor_type, unit, ttl_ms, priority)
        # Numbers and switches stay text: encoding them would cost heap for each message.
        text: str | bytes
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif type(value) in _NUMBERS:
            text = number(value)  # type: ignore[arg-type] # asked by type(): a tuple of types made here would cost heap
        else:
            text = dumps(value).encode()
        if self._form is None:
            self._form = _Form(self._source)
        self._form.reserve(len(tail) + len(text))
        self._clock.read(ticks_ms)
        self.last_seq += 1
        return self._form.fill(self._ids, self._clock, self.last_seq, tail, text)

    def _tail(self, sensor_type: str, unit: str | None, ttl_ms: int, priority: str | None) -> bytes:
        """What stands between the time and the value, made when it is first asked for."""
        tails = self._tails.get(priority)
        if tails is None:
            tails = {}
            self._tails[priority] = tails
        kept = tails.get(sensor_type)
        if kept is None or kept[0] != unit or kept[1] != ttl_ms:
            told = "" if unit is None else f'"unit":{quoted(unit)},'
            told = f'}},"payload":{{"sensor_type":{quoted(sensor_type)},{told}"value":'
            kept = unit, ttl_ms, (_options(ttl_ms, None, None, priority) + told).encode()
            tails[sensor_type] = kept
        tail: bytes = kept[2]
        return tail


def mark_historical(data: bytes) -> bytes:
    """Return the message marked `historical: true`; id, seq and time stay as they were.

    Only for messages built here: their metadata holds no nested object.
    """
    if data[:1] == b"\xd9":
        from spinal.cborform import mark_historical as marked  # noqa: PLC0415 - as above

        return marked(data)
    at = data.find(_META_END)
    if at < 0:
        raise ValueError("not a message of this board: it has no payload")
    if data[at - len(_HISTORICAL) : at] == _HISTORICAL:
        return data
    return data[:at] + _HISTORICAL + data[at:]


def parse(
    data: bytes, schemas: "dict[str, int]" = SCHEMAS, size_limit: int = SIZE_LIMIT
) -> "tuple[dict[str, Any], dict[str, Any]]":
    """Return (meta, payload) of a message, or raise WireError.

    schemas: {contract: place of its schema in contracts.TABLE}, at once the allow-list. The codes,
    in the order of the guard: oversize, empty_payload, unsupported_encoding, decode_error,
    contract_not_allowed, unsupported_version, expiry_missing, schema_invalid, contract_drift.
    """
    return checked(decode(data, size_limit), data, schemas)


def decode(data: bytes, size_limit: int) -> object:
    """The first half of `parse`: the value of JSON or CBOR, whatever it is."""
    if len(data) > size_limit:
        raise WireError("oversize", "size", f"{len(data)} bytes, at most {size_limit} are read")
    if not data:
        raise WireError("empty_payload", "size", "an event has no empty form")
    if data[0] == _PROTOBUF:
        raise WireError("unsupported_encoding", "decode", "Protobuf is not read here")
    if data[0] == _CBOR:
        return _decode_cbor(data, size_limit)
    try:
        return loads(data, size_limit)
    except JSONError as error:
        problem = str(error)  # raised below: MicroPython warns about every chained exception
    raise WireError("decode_error", "decode", problem)


def checked(
    message: object, data: bytes, schemas: "dict[str, int]"
) -> "tuple[dict[str, Any], dict[str, Any]]":
    """The second half of `parse`: (meta, payload) of what `decode` made of the data."""
    meta = message.get("meta") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(meta, dict):
        raise WireError("schema_invalid", "schema", "no object with metadata")
    contract = meta.get("contract")
    if not isinstance(contract, str) or contract not in schemas:
        raise WireError("contract_not_allowed", "allow", f"{contract!r} is not taken here", meta)
    if meta.get("schema_version", VERSION) != VERSION:
        version = meta["schema_version"]
        raise WireError("unsupported_version", "schema", f"{version!r}, not {VERSION}", meta)
    _check_encoding(data, meta)
    breach = check(TABLE, schemas[contract], message)
    if breach in _NO_EXPIRY:
        raise WireError("expiry_missing", "expiry", "ttl_ms or expires_at is required", meta)
    if breach:
        raise WireError("schema_invalid", "schema", f"{breach[0]}: {breach[1]}", meta)
    if meta["message_type"] != contract:
        other = meta["message_type"]
        raise WireError("contract_drift", "drift", f"{other!r} is not {contract!r}", meta)
    return meta, message["payload"]


def produced_unix_ms(meta: "dict[str, Any]") -> int | None:
    """Unix milliseconds of production, None when the sender had no clock."""
    t_ms: int = meta["t_ms"]
    return None if meta["clk"] == "none" else t_ms


def expired(meta: "dict[str, Any]", unix_ms: int | None) -> bool:
    """Whether the message is too old to act on; ttl_ms counts from production.

    While either side has no clock, age cannot be told and nothing is expired here: what must not
    happen late (an actuation) is refused as unsynced instead.
    """
    if unix_ms is None:
        return False
    if "expires_at" in meta and unix_ms >= unix_of(meta["expires_at"]):
        return True
    produced = produced_unix_ms(meta)
    return produced is not None and "ttl_ms" in meta and unix_ms >= produced + meta["ttl_ms"]


def unix_of(timestamp: str) -> int:
    """Unix milliseconds of 2026-11-20T19:44:00.000Z.

    Days from the civil calendar: Howard Hinnant, "chrono-compatible low-level date algorithms".
    """
    year = int(timestamp[0:4])
    month = int(timestamp[5:7])
    if month < 3:  # noqa: PLR2004 - the year of that algorithm begins in March
        year -= 1
        month += 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5
    days += int(timestamp[8:10]) - 1 - 719468
    seconds = int(timestamp[11:13]) * 3600 + int(timestamp[14:16]) * 60 + int(timestamp[17:19])
    return (days * 86400 + seconds) * 1000 + int(timestamp[20:23])


class Recent:
    """The last messages of all sources, to drop an event that comes twice (S0-86).

    Of each 8 bytes of a hash are kept, in one block that never grows.
    """

    def __init__(self, limit: int = 32) -> None:
        self._hashes = bytearray(limit * _HASH_BYTES)
        self._at = 0

    def seen(self, meta: "dict[str, Any]") -> bool:
        """Whether this message came before; remembers it."""
        name = meta["source"] + " " + meta["message_id"]
        digest = sha256(name.encode()).digest()[:_HASH_BYTES]
        hashes = self._hashes
        at = hashes.find(digest)
        while at >= 0:
            if not at % _HASH_BYTES:
                return True
            at = hashes.find(digest, at + 1)
        at = self._at
        hashes[at : at + _HASH_BYTES] = digest
        self._at = (at + _HASH_BYTES) % len(hashes)
        return False


class _Form:
    """A board's measurement in one buffer for all its sensors; only what changes is written anew.

    Numbers stand right-aligned in fields of fixed width, and blanks fill the message up to a
    multiple of 8 bytes: they are legal JSON around a value.
    """

    def __init__(self, source: str) -> None:
        start = '{"meta":{"message_id":"' + " " * 26 + _contract("AfferentSignal") + source
        start += " " * _SEQ_WIDTH
        self._seq_end = len(start.encode())
        head = (start + ',"t_ms":').encode()
        self._time = len(head)
        self._clk_at = self._time + _TIME_WIDTH + len(',"clk":')
        self._buffer = bytearray(head + b" " * _TIME_WIDTH + b',"clk":      ')
        self._tail_at = len(self._buffer)
        self._tail = b""
        self._clk = ""
        self._seq = self._high = self._low = -1
        self._views: dict[int, memoryview] = {}

    def reserve(self, width: int) -> None:
        """Make room for so many bytes behind the time; ValueError beyond the largest message."""
        size = (self._tail_at + width + 2 + 7) & ~7
        if size > SIZE_LIMIT:
            raise ValueError(f"a message of {size} bytes, at most {SIZE_LIMIT} can be sent")
        if size > len(self._buffer):
            self._buffer = self._buffer + bytearray(size - len(self._buffer))
            self._views = {}

    def fill(
        self, ids: "MessageIds", clock: "Clock", seq: int, tail: bytes, text: str | bytes
    ) -> memoryview:
        """Write the message; `reserve` has made room."""
        buffer = self._buffer
        ids.write(buffer, _ID_AT)
        _right_aligned(buffer, self._seq_end, seq, self._seq)
        self._seq = seq
        if clock.clk != self._clk:
            self._clk = clock.clk
            quality = f'"{clock.clk}"'.encode()
            for offset in range(_CLK_WIDTH):
                buffer[self._clk_at + offset] = quality[offset] if offset < len(quality) else 32
        self._write_time(clock.high, clock.low)
        at = self._tail_at
        if tail is not self._tail:
            buffer[at : at + len(tail)] = tail
            self._tail = tail
        at += len(tail)
        end = at + len(text)
        if isinstance(text, bytes):
            buffer[at:end] = text
        else:
            for character in text:
                buffer[at] = ord(character)
                at += 1
        size = (end + 2 + 7) & ~7
        while end < size - 2:
            buffer[end] = 32
            end += 1
        buffer[end] = 125
        buffer[end + 1] = 125
        view = self._views.get(size)
        if view is None:
            # A view costs 32 bytes of a board's heap: one for each length that occurs is kept.
            if len(self._views) == _VIEWS:
                self._views.clear()
            view = memoryview(buffer)[:size]
            self._views[size] = view
        return view

    def _write_time(self, high: int, low: int) -> None:
        buffer = self._buffer
        at = self._time + _TIME_WIDTH
        first = self._time
        was = self._low
        if high != self._high:
            self._high = high
            was = -1
        self._low = low
        if high:
            first = at - 9
            if was < 0:
                _right_aligned(buffer, first, high, was)
        while at > first:
            at -= 1
            buffer[at] = 48 + low % 10
            low //= 10
            was //= 10
            if low == was:
                return  # what stands before them has not changed
            if not low and not high:
                break
        while at > first:
            at -= 1
            buffer[at] = 32


def _right_aligned(buffer: bytearray, end: int, value: int, was: int) -> None:
    """Write a number over an earlier, smaller one, -1 for none: only the digits that change."""
    while True:
        end -= 1
        buffer[end] = 48 + value % 10
        value //= 10
        was //= 10
        if not value or value == was:
            return


def _decode_cbor(data: bytes, size_limit: int) -> object:
    from spinal import cbor  # noqa: PLC0415 - a board that is sent none keeps the heap it takes

    try:
        return cbor.loads(data, size_limit)
    except cbor.CBORError as error:
        problem = str(error)
    raise WireError("decode_error", "decode", problem)


def _check_encoding(data: bytes, meta: "dict[str, Any]") -> None:
    """What a message says of its own encoding is what its first byte told."""
    encoding = _CONTENT_TYPES[data[0] == _CBOR]
    stated = meta.get("content_type", encoding)
    if stated != encoding:
        stage = "agreement" if stated in _CONTENT_TYPES else "schema"
        raise WireError("unsupported_encoding", stage, f"{stated!r} is {encoding}", meta)


def _contract(contract: str) -> str:
    name = quoted(contract)
    return f'","schema_version":"{VERSION}","contract":{name},"message_type":{name}'


def _time(t_ms: int, clk: str) -> str:
    return f',"t_ms":{t_ms},"clk":"{clk}"'


def _options(
    ttl_ms: int | None, action_id: str | None, deadline_ms: int | None, priority: str | None
) -> str:
    text = "" if ttl_ms is None else f',"ttl_ms":{ttl_ms}'
    if action_id is not None:
        text += f',"action_id":"{action_id}"'
    if deadline_ms is not None:
        text += f',"deadline_ms":{deadline_ms}'
    if priority is not None:
        text += f',"priority":"{priority}"'
    return text
