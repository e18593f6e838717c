"""Messages as the ArqonMessage of the design's S4, for a bridge to a bus that speaks it; and back.

Our metadata hold what its fields do (K-5, K-22): `id` is message_id as the text of a UUID,
`sequence` seq, `topic` the dotted name, `producer_id` source, `reality_id` the house,
`trace_context` the traceparent of W3C Trace Context, `spectral` itself. Its payload is our message,
whole, so nothing is lost on the way and the guard judges what comes back.
"""

from typing import Any, Final
from uuid import UUID

from nervus.wire import protobuf
from nervus.wire.decode import DecodeError
from nervus.wire.dotted import dotted, undotted
from nervus.wire.encodings import PROTOBUF, encode
from nervus.wire.ids import ulid_value
from nervus.wire.model import Contract
from nervus.wire.topic import Address

_NAME: Final = "ArqonMessage"
_TYPE: Final = "type.googleapis.com/nervus.v1."


def dumps(address: Address, message: Contract, house: str, *, sequence: int | None = None) -> bytes:
    """The ArqonMessage of a message.

    Args:
        address: Its topic.
        message: The message, as the guard took it.
        house: The reality it is of.
        sequence: What history numbered it in its scope; without, it is the source's own `seq`.
    """
    meta = message.meta.model_dump(mode="json", exclude_none=True)
    made: Any = protobuf.message_class(_NAME)(**_said(meta, address, house))
    if sequence is None:
        sequence = message.meta.seq
    if sequence is not None:
        made.sequence = sequence
    made.payload.type_url = _TYPE + message.meta.contract
    made.payload.value = encode(message, PROTOBUF)
    return bytes(made.SerializeToString(deterministic=True))


def loads(data: bytes, house: str) -> tuple[Address, bytes]:
    """The topic and the message, as Protobuf, in an ArqonMessage: what the guard is given.

    Raises:
        DecodeError: It is not strict, of another house, or says something else than its payload.
    """
    found = protobuf.parsed(_NAME, data)
    address = undotted(found.topic)
    if address is None:
        raise DecodeError(f"{found.topic!r} is no dotted name of a topic")
    inner: bytes = found.payload.value
    meta = protobuf.loads(inner).get("meta", {})
    try:
        expected: Any = protobuf.message_class(_NAME)(**_said(meta, address, house))
        expected.payload.type_url = _TYPE + meta["contract"]
    except KeyError as error:
        raise DecodeError(f"its payload lacks {error}") from None
    if found.HasField("sequence"):  # history's, or the source's: any
        expected.sequence = found.sequence
    expected.payload.value = inner
    if found != expected:
        raise DecodeError("its fields say something else than its payload, or it is another house")
    return address, inner


def _said(meta: dict[str, Any], address: Address, house: str) -> dict[str, Any]:
    """What the fields before the payload say of a message with these metadata."""
    fields = {
        "id": _uuid(meta["message_id"]),
        "topic": dotted(address),
        "producer_id": meta["source"],
        "reality_id": house,
        "spectral": meta.get("spectral"),
    }
    if "trace_id" in meta and "span_id" in meta:
        trace = _uuid(meta["trace_id"]).replace("-", "")
        fields["trace_context"] = {"traceparent": f"00-{trace}-{meta['span_id']}-01"}
    return fields


def _uuid(ulid: str) -> str:
    value = ulid_value(ulid)
    if value is None:
        raise DecodeError(f"{ulid!r} is no id")
    return str(UUID(int=value))
