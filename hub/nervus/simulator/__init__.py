"""Virtual boards: the real firmware on the real MicroPython, one process for each board."""

from nervus.simulator.process import BoardStartError, ControlError
from nervus.simulator.toolchain import Toolchain, ToolchainError
from nervus.simulator.virtual_board import Identity, Output, VirtualBoard

__all__ = [
    "BoardStartError",
    "ControlError",
    "Identity",
    "Output",
    "Toolchain",
    "ToolchainError",
    "VirtualBoard",
]
