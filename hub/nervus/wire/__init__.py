"""The wire: contracts, topics, the guard at every ingress, and the mint at every egress."""

from nervus.wire.effects import Hold, Publish, Release, encode
from nervus.wire.events import Connected
from nervus.wire.guard import Guard
from nervus.wire.mint import Mint
from nervus.wire.refusal import denied, queue_full, refuse
from nervus.wire.rejects import RejectLane
from nervus.wire.times import timestamp, unix_ms
from nervus.wire.topic import Address, LevelError, TopicSpec
from nervus.wire.verdict import Accepted, Packet, Rejected, Removed

__all__ = [
    "Accepted",
    "Address",
    "Connected",
    "Guard",
    "Hold",
    "LevelError",
    "Mint",
    "Packet",
    "Publish",
    "RejectLane",
    "Rejected",
    "Release",
    "Removed",
    "TopicSpec",
    "denied",
    "encode",
    "queue_full",
    "refuse",
    "timestamp",
    "unix_ms",
]
