"""A board for the scripts beside this one: in a kitchen, and with what they add."""

from spinal import node
from spinal.runtime import Runtime


def board(**parts: object) -> Runtime:
    """The board's program, not yet begun."""
    config = {
        "device_id": "m1",
        "scope_level": "room",
        "scope": "kitchen",
        "broker": {"host": "127.0.0.1", "port": 1883},
    }
    config.update(parts)
    return Runtime(node.check(config))
