"""Protobuf of schemas/nervus.proto, read so that nothing gets lost in silence.

A message is read in two steps: its Frame, whose metadata name the contract, then the payload of
that contract. Refused are unknown fields, fields that come twice, longer forms than need be, a true
that is not 1, a choice without a value, NaN and infinities, and integers beyond ± 2⁵³. The first
field is meta.
"""

from functools import cache
from math import isfinite
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from nervus import resources
from nervus.wire.cbor_tables import MESSAGE, PAYLOADS
from nervus.wire.decode import DecodeError
from nervus.wire.model import SAFE_INTEGER
from nervus.wire.octets import octets_of, octets_text

FIRST: Final = 0x12
"""The first byte of a message: field 2, which is meta, with a length."""

COUNT_LIMIT: Final = 128
"""Items of the longest array or map; no schema allows more."""

_PACKAGE: Final = "nervus.v1"
# A shape as in cbor_tables: None, "ulid", "base64", a tuple, a list or a dict.
Shape = Any

_MESSAGE: Final[Shape] = MESSAGE
_PAYLOAD: Final = _MESSAGE[0].index("payload")
_KINDS: Final = {bool: "boolean", int: "integer", float: "number", str: "text", dict: "object"}


def loads(data: bytes) -> dict[str, Any]:
    """Return a message with names in place of numbers; raises DecodeError.

    A payload of a contract that is not known is not read: the message comes without it.
    """
    frame = parsed("Frame", data)
    message: dict[str, Any] = {}
    for field, value in frame.ListFields():
        if field.name != "payload":
            message[field.name] = _read(field, value, _MESSAGE[field.number])
    contract = message.get("meta", {}).get("contract")
    if frame.HasField("payload") and contract in PAYLOADS:
        payload = parsed(_payload(contract), frame.payload)
        message["payload"] = _read_message(payload, PAYLOADS[contract])
    return message


def dumps(message: dict[str, Any]) -> bytes:
    """Return a valid message as Protobuf; ValueError for what its contract does not hold."""
    try:
        contract = message["meta"]["contract"]
        made = message_class(contract)()
        _write_message(made, message, {**_MESSAGE, _PAYLOAD: PAYLOADS[contract]})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message of its contract: {error}") from error
    return made.SerializeToString(deterministic=True)


@cache
def message_class(name: str) -> type[Message]:
    """A message of nervus.proto by its name."""
    return GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def parsed(name: str, data: bytes) -> Any:
    """A message of nervus.proto, read so that nothing is lost in silence; raises DecodeError."""
    message = message_class(name)()
    try:
        message.ParseFromString(data)
    except ProtobufError as error:
        raise DecodeError(f"no Protobuf of {name}: {error}") from error
    # What is written again without the unknown is shorter when anything was lost on the way: an
    # unknown field, or the first of two. A true that was no 1 is one then, and the sum is smaller;
    # the order of fields and of a map's entries changes neither.
    message.DiscardUnknownFields()
    again = message.SerializeToString()
    if again != data and (len(again) != len(data) or sum(again) != sum(data)):
        raise DecodeError(f"{name}: an unknown field, one that comes twice, or a longer form")
    return message


@cache
def _pool() -> DescriptorPool:
    # Made when the first such message comes: most houses never see one.
    pool = DescriptorPool()
    data = (resources.find("schemas") / "nervus.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


@cache
def _payload(contract: str) -> str:
    field: Any = message_class(contract).DESCRIPTOR.fields_by_name["payload"]
    return str(field.message_type.name)


def _read(field: FieldDescriptor, value: Any, shape: Shape) -> Any:
    if field.is_repeated:
        item = shape[0] if shape else None
        return [_read_one(field, each, item) for each in _few(field, value)]
    return _read_one(field, value, shape)


def _read_one(field: FieldDescriptor, value: Any, shape: Shape) -> Any:
    if field.message_type is not None:
        return _read_message(value, shape)
    if field.enum_type is not None:
        # An unknown number stays one: the schema refuses it.
        return (shape[value] if 0 <= value < len(shape) else None) or value
    if isinstance(value, bytes):
        return octets_text(value)
    if isinstance(value, float) and not isfinite(value):
        raise DecodeError(f"{field.name}: no finite number")
    if isinstance(value, int) and abs(value) > SAFE_INTEGER:
        raise DecodeError(f"{field.name}: integer beyond 2^53")
    return value


def _read_message(message: Any, shape: Shape) -> Any:
    descriptor = message.DESCRIPTOR
    fields = descriptor.fields_by_name
    if "kind" in descriptor.oneofs_by_name:
        name = message.WhichOneof("kind")
        if name is None:
            raise DecodeError(f"{descriptor.name}: a choice without a value")
        return _read(fields[name], getattr(message, name), None)
    wrapped = _wrapped(descriptor)
    if wrapped == "items":
        return _read(fields["items"], message.items, shape)
    if wrapped == "entries":
        value = fields["entries"].message_type.fields_by_name["value"]
        entries = _few(fields["entries"], message.entries)
        return {name: _read_one(value, entries[name], None) for name in entries}
    return {
        field.name: _read(field, value, shape.get(field.number))
        for field, value in message.ListFields()
    }


def _wrapped(descriptor: Any) -> str | None:
    """What a message stands for that has one field only: `items` or `entries`."""
    name = descriptor.fields[0].name if len(descriptor.fields) == 1 else None
    return name if name in ("items", "entries") else None


def _few(field: FieldDescriptor, values: Any) -> Any:
    if len(values) > COUNT_LIMIT:
        raise DecodeError(f"{field.name}: {len(values)} items, at most {COUNT_LIMIT} are read")
    return values


def _write_message(message: Any, value: Any, shape: Shape) -> None:
    descriptor = message.DESCRIPTOR
    fields = descriptor.fields_by_name
    if "kind" in descriptor.oneofs_by_name:
        _write(message, fields[_KINDS[type(value)]], value, None)
    elif _wrapped(descriptor) == "items":
        _write(message, fields["items"], value, shape)
    elif _wrapped(descriptor) == "entries":
        for name, each in value.items():
            _write_entry(message.entries, name, each)
    else:
        for name, each in value.items():
            _write(message, fields[name], each, shape.get(fields[name].number))


def _write_entry(entries: Any, name: str, value: Any) -> None:
    if hasattr(entries, "get_or_create"):
        _write_message(entries[name], value, None)
    else:
        entries[name] = value


def _write(message: Any, field: FieldDescriptor, value: Any, shape: Shape) -> None:
    target: Any = getattr(message, field.name)
    if field.is_repeated:
        item = shape[0] if shape else None
        for each in value:
            if field.message_type is not None:
                _write_message(target.add(), each, item)
            else:
                target.append(_scalar(field, each, item))
    elif field.message_type is not None:
        target.SetInParent()
        _write_message(target, value, shape)
    else:
        setattr(message, field.name, _scalar(field, value, shape))


def _scalar(field: FieldDescriptor, value: Any, shape: Shape) -> Any:
    if isinstance(value, bool) is not (field.type == FieldDescriptor.TYPE_BOOL):
        raise TypeError(f"{field.name}: {value!r}")  # Protobuf would make a 1 of true
    if field.type == FieldDescriptor.TYPE_BYTES:
        return octets_of(value)
    return shape.index(value) if field.enum_type is not None else value
