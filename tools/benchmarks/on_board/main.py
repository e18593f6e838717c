"""Stands in for firmware/main.py: the same program, which also says each second what is free."""

import gc
import sys

import spinal.node

node = spinal.node.load("node.json")
del spinal.node, sys.modules["spinal.node"]  # as main.py does
from spinal.runtime import Runtime  # noqa: E402 - as above


class Measured(Runtime):
    """The board's program, which says what is free each second."""

    def _each_second(self) -> None:
        super()._each_second()
        gc.collect()
        free = gc.mem_free()
        used = gc.mem_alloc()
        self.log(f"heap {free} {free + used}")


Measured(node).run()
