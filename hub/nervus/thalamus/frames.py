"""Which of the relayed bundles of a stream go out as deltas, and of what key frame."""

from dataclasses import dataclass

from nervus.thalamus.settings import ThalamusSettings
from nervus.wire.contracts import RelayBundlePayload
from nervus.wire.deltas import shorten

StreamName = tuple[str, str, str]
"""scope_level, scope, channel."""


@dataclass(frozen=True, slots=True)
class _Frame:
    message_id: str
    payload: RelayBundlePayload
    at_ms: int


class Frames:
    """The last key frame of each stream for which deltas are asked.

    A stream gets a key frame at first, after anything of it was dropped, after each connection, and
    every `delta_key_ms`; beyond that whenever a delta would not be shorter.
    """

    def __init__(self, settings: ThalamusSettings) -> None:
        self._asked = {(rule.scope, rule.channel) for rule in settings.deltas}
        self._key_ms = settings.delta_key_ms
        self._frames: dict[StreamName, _Frame] = {}

    def asked(self, stream: StreamName) -> bool:
        """Whether somebody wants deltas of a stream."""
        if not self._asked:
            return False
        level, scope, channel = stream
        name = f"{level}/{scope}"
        return (name, channel) in self._asked or (name, None) in self._asked

    def shortened(
        self, stream: StreamName, payload: RelayBundlePayload, now_ms: int
    ) -> RelayBundlePayload:
        """What to send: a delta where there is a key frame that is good for it, else all of it."""
        frame = self._frames.get(stream)
        if frame is None or now_ms - frame.at_ms >= self._key_ms:
            return payload
        return shorten(payload, frame.payload, frame.message_id) or payload

    def sent(
        self, stream: StreamName, message_id: str, payload: RelayBundlePayload, now_ms: int
    ) -> None:
        """Remember what was sent, if it was whole."""
        if payload.delta_of is None:
            self._frames[stream] = _Frame(message_id, payload, now_ms)

    def dropped(self, stream: StreamName) -> None:
        """Something of a stream did not go out: a key frame is due."""
        self._frames.pop(stream, None)

    def connected(self) -> None:
        """Nobody knows what was lost meanwhile: key frames are due."""
        self._frames.clear()
