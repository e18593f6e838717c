"""What is kept of a rejected message."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reject:
    """One rejected message, or several folded into one by whoever rejected them.

    `source` is who sent what was rejected, as far as it could be read; `reporter` who rejected it,
    and `event_id` the id of the reporter's message, which tells it from its others.
    """

    received_ms: int
    reason_code: str
    reason: str | None
    stage: str
    source: str | None
    source_topic: str | None
    message_id: str | None
    contract: str | None
    count: int
    window_ms: int | None
    sample: str | None
    sha256: str | None
    reporter: str
    event_id: str | None = None
