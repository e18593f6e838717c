"""What comes from a broker."""

from typing import Literal, NamedTuple

Broker = Literal["spinal", "core"]


# A tuple, where one is made for each message: a frozen dataclass costs thrice as much to make.
class Packet(NamedTuple):
    """What came from a broker."""

    broker: Broker
    topic: str
    payload: bytes
    retain: bool = False
