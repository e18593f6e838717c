"""What the guard says of what comes from a broker."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from nervus.wire.contracts import ReasonCode, RejectStage
from nervus.wire.effects import encode
from nervus.wire.model import Contract
from nervus.wire.packet import Broker, Packet
from nervus.wire.plain import plain
from nervus.wire.topic import Address

SAMPLE_BYTES = 256
_META_FIRST = b'{"meta":{'
_PAYLOAD = b'},"payload":{'


class Accepted(NamedTuple):
    """A message that passed; `left_ms` is what is left of its life, None when it has no end.

    `data` is as it came, in whichever encoding.
    """

    address: Address
    message: Contract
    broker: Broker
    received_ms: int
    left_ms: int | None
    data: bytes

    @property
    def payload_json(self) -> bytes:
        """The payload as JSON: cut out of what came where that is possible, else written anew.

        A quotation mark within a text is escaped, so what is looked for is the end of an object and
        a key; nothing in meta holds an object under a key of its choice, and only `errors` may come
        after the payload.
        """
        data, message = self.data, self.message
        if message.errors is None and data.startswith(_META_FIRST):
            at = data.find(_PAYLOAD)
            if at > 0 and data.endswith(b"}"):
                return data[at + len(_PAYLOAD) - 1 : -1]
        return encode(message.payload)


class Removed(NamedTuple):
    """A retained state was removed by an empty payload."""

    address: Address
    broker: Broker


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that did not pass; fields that could not be read are None."""

    reason_code: ReasonCode
    stage: RejectStage
    reason: str
    packet: Packet
    address: Address | None
    source: str | None
    message_id: str | None
    contract: str | None

    @property
    def sample(self) -> str:
        """The beginning of what came, with what cannot be printed replaced."""
        return plain(self.packet.payload[:SAMPLE_BYTES].decode("utf-8", "replace"))

    @property
    def sha256(self) -> str:
        """Digest of what came, hexadecimal."""
        return sha256(self.packet.payload).hexdigest()


Verdict = Accepted | Removed | Rejected


class Refusal(Exception):  # noqa: N818 - a verdict on its way up, not an error of ours
    """Why a message does not pass, and its metadata where only those who refuse it have read it."""

    def __init__(
        self,
        reason_code: ReasonCode,
        stage: RejectStage,
        reason: str,
        meta: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(reason)
        self.reason_code: ReasonCode = reason_code
        self.stage: RejectStage = stage
        self.reason = reason[:200]
        self.meta = meta
