"""The wire: contracts, topics, the guard at every ingress, and the mint at every egress."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.wire.effects import Hold, Publish, Release, encode
    from nervus.wire.events import Connected
    from nervus.wire.guard import Guard
    from nervus.wire.mint import Mint
    from nervus.wire.packet import Packet
    from nervus.wire.refusal import denied, queue_full, refuse
    from nervus.wire.rejects import RejectLane
    from nervus.wire.times import timestamp, unix_ms
    from nervus.wire.topic import Address, LevelError, TopicSpec
    from nervus.wire.verdict import Accepted, Rejected, Removed
else:
    __getattr__ = late(
        __name__,
        {
            "effects": ("Hold", "Publish", "Release", "encode"),
            "events": ("Connected",),
            "guard": ("Guard",),
            "mint": ("Mint",),
            "packet": ("Packet",),
            "refusal": ("denied", "queue_full", "refuse"),
            "rejects": ("RejectLane",),
            "times": ("timestamp", "unix_ms"),
            "topic": ("Address", "LevelError", "TopicSpec"),
            "verdict": ("Accepted", "Rejected", "Removed"),
        },
    )

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
