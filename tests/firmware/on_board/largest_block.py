"""Runs on the virtual board's MicroPython: the largest block that DeviceHealth tells.

Prints as JSON what is told on a port without a heap of its system's, then on one with.
"""

import json
import sys

import bare
from control import channel


class Esp32:
    """The port's module, with regions as (all, free, largest block, least ever free)."""

    @staticmethod
    def idf_heap_info(capability: int) -> list:
        """Regions that fit."""
        regions = {4: [(30000, 9000, 300, 1), (90000, 80000, 70000, 1)]}
        return regions[capability]


def main() -> None:
    """Tell twice."""
    channel.wifi = False
    board = bare.board()
    told: list = []
    board.outgoing.about_board = lambda _contract, payload, _ticks: told.append(payload)
    board.upkeep._report_health()
    sys.modules["esp32"] = Esp32
    board.upkeep._report_health()
    print(json.dumps([(each["heap_free"], each["heap_largest"]) for each in told]))


main()
