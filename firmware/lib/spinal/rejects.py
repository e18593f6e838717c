"""What this board refused, as RejectEvents: the first of a kind at once, the rest folded."""

from spinal.ticks import elapsed

_KINDS = 8
_SAMPLE = 128
_TEXT = 200
_FIRST_PRINTABLE = 0x20
_LAST_PRINTABLE = 0x7E
_QUESTION_MARK = 0x3F


class Rejects:
    """Folds refusals by reason: one event at once, then one with a count for each window.

    window_ms: how long refusals of one reason are gathered. At most 8 reasons are told apart at a
    time; `uncounted` counts what came beyond that, `total` all refusals since boot.
    """

    def __init__(self, window_ms: int = 5000) -> None:
        self.uncounted = 0
        self.total = 0
        self._window_ms = window_ms
        self._open: dict = {}

    def add(
        self,
        code: str,
        stage: str,
        *,
        t_ms: int,
        ticks_ms: int,
        text: str | None = None,
        topic: str | None = None,
        meta: dict | None = None,
        data: bytes = b"",
    ) -> dict | None:
        """The payload to publish now, or None when it is folded into a later one."""
        self.total += 1
        kind = self._open.get(code)
        if kind is not None:
            kind["count"] += 1
            return None
        payload = {"reason_code": code, "stage": stage, "observed_at": t_ms}
        payload["input_ref"] = _input_ref(topic, meta)
        if text:
            payload["reason"] = _printable(text.encode()[:_TEXT])
        if data:
            payload["sample"] = _printable(data[:_SAMPLE])
        if len(self._open) < _KINDS:
            self._open[code] = {"since": ticks_ms, "count": 0, "payload": payload}
        else:
            self.uncounted += 1
        return payload

    def tick(self, t_ms: int, ticks_ms: int) -> list[dict]:
        """Payloads of the windows that ended with something folded."""
        ended = []
        for code, kind in list(self._open.items()):
            if elapsed(ticks_ms, kind["since"]) < self._window_ms:
                continue
            if not kind["count"]:
                del self._open[code]
                continue
            payload = dict(kind["payload"])
            payload["observed_at"] = t_ms
            payload["count"] = kind["count"]
            payload["window_ms"] = elapsed(ticks_ms, kind["since"])
            ended.append(payload)
            kind["since"] = ticks_ms
            kind["count"] = 0
        return ended


def _input_ref(topic: str | None, meta: dict | None) -> dict:
    # What cannot be read as the schema wants it is left out: a reject must not be refused itself.
    reference = {}
    if topic:
        reference["source_topic"] = _printable(topic.encode()[:512])
    for name, limit in (("contract", 64), ("source", 80)):
        value = meta.get(name) if meta else None
        if (
            isinstance(value, str)
            and 0 < len(value) <= limit
            and _printable(value.encode()) == value
        ):
            reference[name] = value
    return reference


def _printable(data: bytes) -> str:
    printable = bytearray(data)
    for at, byte in enumerate(printable):
        if not _FIRST_PRINTABLE <= byte <= _LAST_PRINTABLE:
            printable[at] = _QUESTION_MARK
    return printable.decode()
