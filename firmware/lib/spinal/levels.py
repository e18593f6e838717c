"""Topic levels: a value as one level of a topic, and back.

A level keeps `[A-Za-z0-9_:-]`; every other byte of the UTF-8 text is percent-encoded, because a dot
or a blank breaks brokers that people scale out to. At most 64 characters when encoded.
"""

LIMIT = 64
_SPACE = 32
PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:-"
_PLAIN_BYTES = PLAIN.encode()


def level(text: str) -> str:
    """Encode a value; raises ValueError when it is empty, too long or has control characters."""
    # No loop over characters: each of them would become a name that a board keeps for good.
    if text.strip(PLAIN):
        if min(text.encode()) < _SPACE or "\x7f" in text:
            raise ValueError("topic level: no control characters, not " + repr(text))
        encoded = bytearray()
        for byte in text.encode():
            encoded.extend(bytes((byte,)) if byte in _PLAIN_BYTES else b"%%%02X" % byte)
        text = encoded.decode()
    if not 0 < len(text) <= LIMIT:
        raise ValueError("topic level: 1 to 64 characters when encoded, not " + repr(text))
    return text


def unlevel(text: str) -> str:
    """Decode a level; raises ValueError when it is not encoded as `level` does it."""
    if "%" not in text:
        return text
    head, *rest = text.split("%")
    data = bytearray(head.encode())
    for part in rest:
        data.append(int(part[:2], 16))
        data.extend(part[2:].encode())
    value = bytes(data).decode()
    if level(value) != text:
        raise ValueError("topic level: not canonical: " + repr(text))
    return value
