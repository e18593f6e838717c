"""A level that rises at once and falls with a half-life."""

from typing import Final

FLOOR: Final = 0.02
"""Below it a level is 0."""


class Level:
    """0 to 1: L(t) = L₀ · 2^(-(t - t₀) / half-life), and 0 below 0.02; no half-life, no fall."""

    __slots__ = ("_at_ms", "_level", "half_life_ms")

    def __init__(self) -> None:
        self._level = 0.0
        self._at_ms = 0
        self.half_life_ms: int | None = None

    def at(self, now_ms: int) -> float:
        """The level at a time; before it was set, what it was set to."""
        level = self._level
        if level and self.half_life_ms:
            level *= 0.5 ** (max(0, now_ms - self._at_ms) / self.half_life_ms)
        return level if level >= FLOOR else 0.0

    def set(self, level: float, half_life_ms: int | None, now_ms: int) -> None:
        """Let it fall from `level` on."""
        self._level = level
        self.half_life_ms = half_life_ms
        self._at_ms = now_ms
