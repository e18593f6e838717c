"""Strict JSON, read the same way on every interpreter.

MicroPython's own reader takes `[1 2]`, `01`, duplicate keys and text after the value; a wire that
takes them on one side and not on the other has two meanings. Integers beyond ± 2**53 and numbers
that overflow to infinity are refused because JavaScript cannot hold them.
"""

from math import isfinite

DEPTH_LIMIT = 16
SIZE_LIMIT = 8192
INTEGER_LIMIT = (1 << 53) - 1

_SPACE = 32
_DELETE = 0x7F
_QUOTE = 34
_COMMA = 44
_COLON = 58
_HIGH_SURROGATE = 0xD800
_LOW_SURROGATE = 0xDC00
_ESCAPES = b'""\\\\//b\bf\fn\nr\rt\t'  # letter, character, letter, character …
# RFC 3629, section 4: first byte from, to; second byte from, to; length.
_UTF8_FORM = 5
_UTF8_FORMS = (
    b"\x00\x7f\x00\x00\x01"
    b"\xc2\xdf\x80\xbf\x02"
    b"\xe0\xe0\xa0\xbf\x03"
    b"\xe1\xec\x80\xbf\x03"
    b"\xed\xed\x80\x9f\x03"
    b"\xee\xef\x80\xbf\x03"
    b"\xf0\xf0\x90\xbf\x04"
    b"\xf1\xf3\x80\xbf\x04"
    b"\xf4\xf4\x80\x8f\x04"
)
_WORDS = ((b"true", True), (b"false", False), (b"null", None))


class JSONError(ValueError):
    """The text is not strict JSON; the message says what is wrong and at which byte."""


def loads(data: bytes, size_limit: int = SIZE_LIMIT) -> object:
    """Return the value of a JSON text in UTF-8; JSONError names the first fault and its byte."""
    if len(data) > size_limit:
        raise JSONError(f"{len(data)} bytes, at most {size_limit} are read")
    return _Reader(bytes(data)).document()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        # Most texts are such: what is between two quotation marks is a string, as it stands, and
        # behind a quotation mark, a colon or a comma there is another byte.
        self._plain = (
            data[-1:] == b"}" and b"\\" not in data and min(data) >= _SPACE and max(data) < _DELETE
        )

    def document(self) -> object:
        value = self._value(DEPTH_LIMIT)
        self._peek()
        if self._at < len(self._data):
            raise self._fault("text after the value")
        return value

    def _fault(self, what: str) -> JSONError:
        return JSONError(f"{what} at byte {self._at}")

    def _peek(self) -> int:
        """Skip blanks; the next byte, or 0 at the end."""
        data = self._data
        at = self._at
        size = len(data)
        while at < size:
            byte = data[at]
            if byte > _SPACE or byte not in b" \n\r\t":
                self._at = at
                return byte
            at += 1
        self._at = at
        return 0

    def _value(self, depth: int) -> object:
        first = self._peek()
        if first == _QUOTE:
            return self._string()
        if first in b"-0123456789" and first:
            return self._number()
        if first in b"{[" and first:
            if not depth:
                raise self._fault(f"nested deeper than {DEPTH_LIMIT}")
            return self._object(depth - 1) if first == ord("{") else self._array(depth - 1)
        for word, value in _WORDS:
            if self._data[self._at : self._at + len(word)] == word:
                self._at += len(word)
                return value
        raise self._fault("no value")

    def _object(self, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        self._at += 1
        if self._peek() == ord("}"):
            self._at += 1
            return result
        data = self._data
        find = data.find
        size = len(data)
        plain = self._plain
        while True:
            at = self._at
            # Written out for what is usual; all else goes through the other methods.
            end = find(b'"', at + 1) if plain and data[at] == _QUOTE else -1
            if end > 0:
                key = data[at + 1 : end].decode()
                at = end + 1
            else:
                if self._peek() != _QUOTE:
                    raise self._fault("no key")
                key = self._string()
                at = self._at
            if key in result:
                raise self._fault("duplicate key")
            end = (
                find(b'"', at + 2)
                if plain and data[at] == _COLON and data[at + 1] == _QUOTE
                else -1
            )
            if end > 0:
                result[key] = data[at + 2 : end].decode()
                at = end + 1
            else:
                self._at = at
                if self._peek() != _COLON:
                    raise self._fault("no colon")
                self._at += 1
                result[key] = self._value(depth)
                at = self._at
            self._at = at
            if plain and at < size and data[at] == _COMMA:
                self._at = at + 1
            elif self._closed(ord("}")):
                return result

    def _array(self, depth: int) -> list[object]:
        result: list[object] = []
        self._at += 1
        if self._peek() == ord("]"):
            self._at += 1
            return result
        while True:
            result.append(self._value(depth))
            if self._closed(ord("]")):
                return result

    def _closed(self, closing: int) -> bool:
        following = self._peek()
        if following != closing and following != ord(","):
            raise self._fault("no comma and no end")
        self._at += 1
        return following == closing

    def _number(self) -> int | float:
        data = self._data
        start = self._at
        # Stripped by the interpreter: a loop over its digits takes five times as long.
        part = data[start : start + 16]
        rest = part.lstrip(b"0123456789")
        size = len(part) - len(rest)
        if rest and rest[0] in b",}" and (size == 1 or (size and part[0] != 48)):  # noqa: PLR2004 - "0"
            self._at += size
            return int(part[:size])
        self._at += data[start] == ord("-")
        first = self._at
        self._digits()
        if data[first] == ord("0") and self._at > first + 1:
            raise self._fault("leading zero")
        whole_end = self._at
        if data[self._at : self._at + 1] == b".":
            self._at += 1
            self._digits()
        if data[self._at : self._at + 1] in (b"e", b"E"):
            self._at += 1
            if data[self._at : self._at + 1] in (b"+", b"-"):
                self._at += 1
            self._digits()
        text = data[start : self._at].decode()
        if self._at == whole_end:
            # The length first: the time to convert digits grows with their square.
            if self._at - first > 16 or not -INTEGER_LIMIT <= int(text) <= INTEGER_LIMIT:  # noqa: PLR2004 - digits of 2**53
                raise self._fault("integer beyond 2**53")
            return int(text)
        number = float(text)
        if not isfinite(number):
            raise self._fault("number beyond every float")
        return number

    def _digits(self) -> None:
        data = self._data
        at = self._at
        while at < len(data) and 48 <= data[at] <= 57:  # noqa: PLR2004 - "0" to "9"
            at += 1
        if at == self._at:
            raise self._fault("no digit")
        self._at = at

    def _string(self) -> str:
        data = self._data
        self._at += 1
        start = self._at
        end = data.find(b'"', start)
        segment = data[start:end] if end >= 0 else b"\\"
        if b"\\" not in segment and (not segment or min(segment) >= _SPACE):
            self._at = end + 1
            return decoded(segment, start)
        return self._spelled()

    def _spelled(self) -> str:
        """Read a string byte by byte: one with escapes, or with a fault to be named."""
        data = self._data
        parts: list[str] = []
        start = self._at
        while True:
            if self._at >= len(data):
                raise self._fault("unterminated string")
            byte = data[self._at]
            if byte < _SPACE:
                raise self._fault("control character in a string")
            if byte in (34, 92):
                parts.append(decoded(data[start : self._at], start))
                self._at += 1
                if byte == 34:  # noqa: PLR2004 - a quotation mark
                    return parts[0] if len(parts) == 1 else "".join(parts)
                parts.append(self._escape())
                start = self._at
            else:
                self._at += 1

    def _escape(self) -> str:
        letter = self._data[self._at] if self._at < len(self._data) else 0
        place = _ESCAPES.find(bytes((letter,)))
        if place >= 0 and not place % 2:
            self._at += 1
            return chr(_ESCAPES[place + 1])
        if letter != ord("u"):
            raise self._fault("unknown escape")
        code = self._hex4()
        half = code & 0xFC00
        if half == _HIGH_SURROGATE and self._data[self._at : self._at + 2] == b"\\u":
            self._at += 1
            low = self._hex4()
            if low & 0xFC00 == _LOW_SURROGATE:
                return chr(0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF))
        if half in (_HIGH_SURROGATE, _LOW_SURROGATE):
            raise self._fault("lone surrogate")
        return chr(code)

    def _hex4(self) -> int:
        digits = self._data[self._at + 1 : self._at + 5]
        code = 0
        for digit in digits:
            place = b"0123456789abcdefABCDEF".find(bytes((digit,)))
            if place < 0:
                raise self._fault("no hexadecimal digit")
            code = code << 4 | (place if place < 16 else place - 6)  # noqa: PLR2004 - capitals
        if len(digits) < 4:  # noqa: PLR2004 - \\uXXXX
            raise self._fault("short escape")
        self._at += 5
        return code


def decoded(segment: bytes, start: int) -> str:
    """UTF-8 to text, as strict as RFC 3629: MicroPython's decode takes overlong forms."""
    if segment and max(segment) > 0x7F:  # noqa: PLR2004 - beyond ASCII
        at = 0
        while at < len(segment):
            step = _sequence_length(segment[at : at + 4])
            if not step:
                raise JSONError(f"no UTF-8 at byte {start + at}")
            at += step
    return segment.decode()


def _sequence_length(head: bytes) -> int:
    """Bytes of the well-formed sequence at the start of head, 0 when there is none."""
    for at in range(0, len(_UTF8_FORMS), _UTF8_FORM):
        low, high, second_low, second_high, length = _UTF8_FORMS[at : at + _UTF8_FORM]
        if low <= head[0] <= high:
            if len(head) < length:
                return 0
            for follower in range(1, length):
                least, most = (second_low, second_high) if follower == 1 else (0x80, 0xBF)
                if not least <= head[follower] <= most:
                    return 0
            return length
    return 0
