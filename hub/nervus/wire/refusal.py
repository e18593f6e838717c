"""Rejects that do not come from the guard: a core cannot apply a message, a broker denies one."""

from nervus.wire.contracts import ReasonCode, RejectStage
from nervus.wire.effects import Publish, encode
from nervus.wire.model import Contract
from nervus.wire.packet import Broker, Packet
from nervus.wire.topic import Address
from nervus.wire.topic_parser import parse
from nervus.wire.verdict import Accepted, Rejected


def refuse(
    accepted: Accepted, reason_code: ReasonCode, stage: RejectStage, reason: str
) -> Rejected:
    """Return the reject a core gives back for a message it takes no part in.

    Its sample is the message as decoded, which may differ in spacing from the bytes that came.
    """
    return _rejected(
        accepted.address, accepted.message, accepted.broker, reason_code, stage, reason
    )


def denied(publish: Publish) -> Rejected:
    """Return the reject of a message of our own that the broker denied."""
    broker: Broker = "core" if publish.on == "core" else "spinal"
    reason = f"{broker} denied it: this part's role does not publish there"
    return _rejected(publish.address, publish.message, broker, "acl_denied", "broker", reason)


def queue_full(packet: Packet) -> Rejected:
    """Return the reject of a packet that nobody has looked at: there was no room for it."""
    return Rejected(
        reason_code="queue_full",
        stage="queue",
        reason="more came than this part can take",
        packet=packet,
        address=parse(packet.topic),
        source=None,
        message_id=None,
        contract=None,
    )


def _rejected(
    address: Address,
    message: Contract,
    broker: Broker,
    reason_code: ReasonCode,
    stage: RejectStage,
    reason: str,
) -> Rejected:
    meta = message.meta
    return Rejected(
        reason_code=reason_code,
        stage=stage,
        reason=reason[:200],
        packet=Packet(broker, address.topic, encode(message), address.spec.retained),
        address=address,
        source=meta.source,
        message_id=meta.message_id,
        contract=meta.contract,
    )
