"""Virtual boards: the real firmware on the real MicroPython, one process for each board."""

from nervus.simulator.image import ImageError, modules
from nervus.simulator.process import BoardStartError, ControlError
from nervus.simulator.toolchain import Form, Toolchain, ToolchainError
from nervus.simulator.virtual_board import Identity, Output, VirtualBoard

__all__ = [
    "BoardStartError",
    "ControlError",
    "Form",
    "Identity",
    "ImageError",
    "Output",
    "Toolchain",
    "ToolchainError",
    "VirtualBoard",
    "modules",
]
