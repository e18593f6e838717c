"""The wire: contracts, topics, the guard at every ingress, and the mint at every egress."""

from nervus.wire.effects import Publish, encode
from nervus.wire.events import Connected
from nervus.wire.guard import Guard
from nervus.wire.mint import Mint
from nervus.wire.refusal import denied, refuse
from nervus.wire.rejects import RejectLane
from nervus.wire.times import timestamp, unix_ms
from nervus.wire.topic import Address, LevelError, TopicSpec
from nervus.wire.verdict import Accepted, Packet, Rejected, Removed

__all__ = [
    "Accepted",
    "Address",
    "Connected",
    "Guard",
    "LevelError",
    "Mint",
    "Packet",
    "Publish",
    "RejectLane",
    "Rejected",
    "Removed",
    "TopicSpec",
    "denied",
    "encode",
    "refuse",
    "timestamp",
    "unix_ms",
]
