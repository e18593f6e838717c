"""What the demo has seen: counts, last values and latencies. No I/O."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

from nervus.demo.attention import Attention

SAMPLES: Final = 10_000
STORIES: Final = 200
RATE_SECONDS: Final = 5
TRAIL: Final = 40


class Latency:
    """Durations in milliseconds; keeps the last 10,000."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def add(self, milliseconds: float) -> None:
        """Take one duration."""
        self._samples.append(milliseconds)

    def percentile(self, share: float) -> float | None:
        """The smallest duration that at least `share` (0 to 1) of them do not exceed; None of none.

        Nearest-rank method.
        """
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        rank = max(1, -int(-share * len(ordered) // 1))
        return ordered[rank - 1]

    def summary(self) -> dict[str, float | int | None]:
        """Count, p50, p99 and worst."""
        return {
            "count": len(self._samples),
            "p50": _rounded(self.percentile(0.5)),
            "p99": _rounded(self.percentile(0.99)),
            "max": _rounded(self.percentile(1.0)),
        }


class Meter:
    """A count and how fast it grows, over the last five seconds."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def add(self, now_s: float, count: int = 1) -> None:
        """Count something at `now_s` (any clock in seconds)."""
        self.total += count
        self._recent.append((now_s, count))

    def rate(self, now_s: float) -> float:
        """A second, over the last five."""
        while self._recent and self._recent[0][0] < now_s - RATE_SECONDS:
            self._recent.popleft()
        return sum(count for _, count in self._recent) / RATE_SECONDS


@dataclass(slots=True)
class BoardView:
    """One board as it looks from outside."""

    status: str = "unseen"
    values: dict[str, Any] = field(default_factory=dict)
    trails: dict[str, deque[float]] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)
    fires: dict[str, int] = field(default_factory=dict)
    starts: int = 0

    def value(self, sensor: str, value: Any) -> None:
        """Take a new value of a sensor."""
        self.values[sensor] = value
        trail = self.trails.setdefault(sensor, deque(maxlen=TRAIL))
        trail.append(float(value))


@dataclass(slots=True)
class CommandView:
    """One command on its way."""

    action_id: str
    what: str
    asked_s: float
    timed: bool = True
    accepted: bool = False
    outcome: str | None = None
    took_ms: float | None = None
    error: str | None = None


@dataclass(slots=True)
class Tally:
    """Everything the view shows and the report tells."""

    boards: dict[str, BoardView] = field(default_factory=dict)
    playing: bool = False
    afferents: Meter = field(default_factory=Meter)
    bundles: Meter = field(default_factory=Meter)
    relayed: Meter = field(default_factory=Meter)
    attention: Attention = field(default_factory=Attention)
    commands: dict[str, CommandView] = field(default_factory=dict)
    late_outcomes: int = 0
    outcomes_twice: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    reject_lines: list[str] = field(default_factory=list)
    parts: dict[str, tuple[str, int]] = field(default_factory=dict)
    stories: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=STORIES))
    reflex_ms: Latency = field(default_factory=Latency)
    relay_ms: Latency = field(default_factory=Latency)
    outcome_ms: Latency = field(default_factory=Latency)

    def begin(self) -> None:
        """The script begins and the clock is set to 0: forget whose end was on the clock before."""
        self.playing = True
        self.attention.gates.clear()
        self.attention.levels.clear()

    def tell(self, now_s: float, text: str) -> None:
        """Add a line to the story."""
        self.stories.append((now_s, text))

    @property
    def fires(self) -> int:
        """Reflex fires, as the boards report them."""
        return sum(sum(board.fires.values()) for board in self.boards.values())

    def open_commands(self) -> list[CommandView]:
        """Commands that have no outcome yet."""
        return [each for each in self.commands.values() if each.outcome is None]

    def report(self, seconds: float) -> dict[str, Any]:
        """The machine-readable summary that `--json` writes; latencies in milliseconds."""
        outcomes = Counter(each.outcome for each in self.commands.values() if each.outcome)
        return {
            "seconds": round(seconds, 1),
            "boards": {
                name: {"status": board.status, "starts": board.starts, "reflex_fires": board.fires}
                for name, board in self.boards.items()
            },
            "afferents": self.afferents.total,
            "bundles": self.bundles.total,
            "gated_relays": self.relayed.total,
            "route_decisions": dict(self.attention.decisions),
            "attention": self.attention.report(),
            "reflex_fires": self.fires,
            "commands": {
                "requested": len(self.commands),
                "accepted": sum(each.accepted for each in self.commands.values()),
                "outcomes": dict(outcomes),
                "without_outcome": len(self.open_commands()),
                "outcomes_twice": self.outcomes_twice,
            },
            "rejects": {"total": sum(self.rejects.values()), "by_reason": dict(self.rejects)},
            "restarts": {name: restarts for name, (_, restarts) in self.parts.items()},
            "latency_ms": {
                "input_to_reflex_output": self.reflex_ms.summary(),
                "afferent_to_gated_relay": self.relay_ms.summary(),
                "command_to_outcome": self.outcome_ms.summary(),
            },
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
