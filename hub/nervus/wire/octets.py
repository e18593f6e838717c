"""Bytes in a message: base64 in JSON, themselves in CBOR and Protobuf."""

from binascii import a2b_base64, b2a_base64


def octets_text(octets: bytes) -> str:
    """The base64 of some bytes, with padding (RFC 4648, section 4)."""
    return b2a_base64(octets, newline=False).decode()


def octets_of(text: str) -> bytes:
    """The bytes of a base64; ValueError for a text that `octets_text` does not write."""
    octets = a2b_base64(text)
    if octets_text(octets) != text:
        raise ValueError(f"{text[:24]!r} is not the base64 of any bytes")
    return octets
