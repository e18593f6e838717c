"""Raw opt-in: the measurements of one selector that may rise for a while (K-9)."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from nervus.wire import topics
from nervus.wire.topic import Address
from nervus.wire.topic_parser import parse

ROOT: Final = "/sc/aff/event"


class RawGrant(BaseModel):
    """What policy has allowed, and written to its audit.

    Args:
        id: Of the rule that asks for it.
        topic_prefix: The selector: the afferents of one sensor type in one scope, of all its
            devices or of one.
        rate: Measurements a second, all devices together.
        expires_ms: When it ends, unix milliseconds.
        decision_id: Of its audit record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    topic_prefix: str
    rate: Annotated[int, Field(ge=1)]
    expires_ms: int
    decision_id: str

    @property
    def filter(self) -> str:
        """What it subscribes to, and the one thing its permission names."""
        return self.topic_prefix if _whole(self.topic_prefix) else f"{self.topic_prefix}/device/+"

    def covers(self, topic: str) -> bool:
        """Whether it lets an afferent's topic rise."""
        return topic == self.topic_prefix or topic.startswith(f"{self.topic_prefix}/")


def selected(prefix: str) -> Address | None:
    """The topic of an afferent that a prefix selects; None if it names no one sensor type.

    Of a prefix without a device any device will do.
    """
    return _whole(prefix) or _whole(f"{prefix}/device/any")


def _whole(topic: str) -> Address | None:
    address = parse(topic)
    return address if address is not None and address.spec is topics.AFFERENT else None
