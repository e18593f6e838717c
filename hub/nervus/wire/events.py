"""What a core is told beside the guard's verdicts."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Connected:
    """A session is connected and subscribed, again or for the first time."""

    broker: Literal["spinal", "core"]
