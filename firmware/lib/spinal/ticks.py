"""Wrap-safe millisecond ticks.

A board's tick counter is 30 bits wide and wraps every 12.4 days. Everything here is arithmetic
modulo 2**30 on small integers: no allocation on a board, the same answers on CPython.
"""

HALF = 1 << 29
MASK = (1 << 30) - 1

LONGEST_MS = 1 << 28
"""The longest interval that may be configured: 3.1 days, well inside half the tick range."""


def elapsed(now: int, then: int) -> int:
    """Milliseconds from then to now; negative when then lies ahead. Exact within ± 6.2 days."""
    difference = (now - then) & MASK
    if difference < HALF:
        return difference
    # 2**30 itself is no small integer on a board: taken off in two halves nothing is allocated.
    return difference - HALF - HALF


def later(now: int, interval_ms: int) -> int:
    """The tick interval_ms after now."""
    return (now + interval_ms) & MASK
