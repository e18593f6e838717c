"""The three encodings of a message, told by its first byte; one meaning in all of them."""

from typing import Any, Final

from nervus.wire import cbor, protobuf
from nervus.wire.decode import decode as decode_json
from nervus.wire.effects import encode as encode_json
from nervus.wire.model import Contract

JSON: Final = "application/json"
CBOR: Final = "application/cbor"
PROTOBUF: Final = "application/x-protobuf"
CONTENT_TYPES: Final = (JSON, CBOR, PROTOBUF)


def told_by(data: bytes) -> str:
    """The content type that the first byte tells; what is none of the others is read as JSON."""
    return _BY_FIRST_BYTE.get(data[0], JSON) if data else JSON


def decode(data: bytes) -> Any:
    """Read a message in whichever encoding it is; raises DecodeError.

    What comes back is what its JSON would give: names, not numbers.
    """
    if data:
        if data[0] == cbor.MARK[0]:
            return cbor.loads(data)
        if data[0] == protobuf.FIRST:
            return protobuf.loads(data)
    return decode_json(data)


def encode(message: Contract, content_type: str = JSON) -> bytes:
    """Write a message; metadata that name its encoding name this one."""
    if message.meta.content_type not in (None, content_type):
        meta = message.meta.model_copy(update={"content_type": content_type})
        message = message.model_copy(update={"meta": meta})
    if content_type == JSON:
        return encode_json(message)
    value = message.model_dump(mode="json", exclude_none=True)
    return cbor.dumps(value) if content_type == CBOR else protobuf.dumps(value)


_BY_FIRST_BYTE: Final = {cbor.MARK[0]: CBOR, protobuf.FIRST: PROTOBUF}
