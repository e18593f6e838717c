"""What waits for the link: bounded, by priority, first in first out inside a priority.

A message keeps the seq and the time it was built with, however late it leaves. What waited through
an outage is handed to `mark` once (`envelope.mark_historical`), when it is about to go.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PRIORITIES = ("control", "critical", "normal", "background")
_RANGES = 16
_LEAST_BYTES = 2048
# What a message takes of a board's heap beside its topic and data: the record, its fields, and the
# heads of two objects, each rounded up to blocks of 16 bytes.
OVERHEAD = 224
NO_SEQ = -1
"""The seq of an empty message, which has none: nobody will miss it."""


class Item:
    """One message: topic, data (bytes), qos, retain, priority, seq.

    attempts: how often it was handed to the link; in_flight: sent at QoS 1 and not acknowledged;
    waited: it was here during an outage and is to be marked; spilled: it comes from the flash.
    """

    spilled = False

    def __init__(
        self,
        topic: str,
        data: bytes,
        qos: int,
        retain: bool,  # noqa: FBT001 - a field of the record
        priority: str,
        seq: int,
    ) -> None:
        self.topic = topic
        self.data = data
        self.qos = qos
        self.retain = retain
        self.priority = priority
        self.seq = seq
        self.attempts = 0
        self.in_flight = False
        self.waited = False

    def size(self) -> int:
        """Bytes it counts for: what it takes of the heap."""
        return len(self.topic) + len(self.data) + OVERHEAD


class Outbox:
    """At most `limit` messages that take `max_bytes` of the heap, `OVERHEAD` of each included.

    A full outbox sheds the oldest message of the lowest priority; nothing is ever shed for
    something less important, and what is in flight is never shed. `dropped` counts what was shed,
    `superseded` retained state that a newer one of the same topic replaced before it left.

    spill: a `spinal.spill.Spill`; during an outage all but retained state goes there before the
    outbox is full, and comes back first, so that order holds; only what is `control` goes before.
    `spill_error` says why the flash did not take it: what then does not fit is shed.
    """

    def __init__(
        self, limit: int, max_bytes: int = 32768, mark: "Any" = None, spill: "Any" = None
    ) -> None:
        self.dropped = 0
        self.superseded = 0
        self._limit = limit
        self._max_bytes = max_bytes
        self._mark = mark
        self.waiting: dict[str, list[Item]] = {priority: [] for priority in PRIORITIES}
        self._in_flight: list[Item] = []
        self._count = 0
        self._bytes = 0
        self._linked = False
        self._drops: list[list[int]] = []
        self._spill = spill
        self._to_spill: list[Item] | None = None
        self._spilled = 0
        self.spill_error: str | None = None

    def __len__(self) -> int:
        return self._count

    def put(
        self,
        topic: str,
        data: "bytes | bytearray | memoryview",
        qos: int,
        retain: bool,  # noqa: FBT001 - positional by agreement with the shell
        priority: str,
        seq: int,
    ) -> Item | None:
        """Queue a message: None, or the last Item that was shed for it (maybe the new one itself).

        data that is not bytes is copied. KeyError for an unknown priority.
        """
        waiting = self.waiting[priority]
        item = Item(
            topic, data if isinstance(data, bytes) else bytes(data), qos, retain, priority, seq
        )
        item.waited = not self._linked
        if retain:
            self._supersede(topic)
        shed = None
        while self._count >= self._limit or self._bytes + item.size() > self._max_bytes:
            if self._spill_all():
                continue
            shed = self._least(priority) if item.size() <= self._max_bytes else None
            if shed is None:
                self._note_drop(item)
                return item
            self._forget(shed)
            self._note_drop(shed)
        waiting.append(item)
        self._count += 1
        self._bytes += item.size()
        if not self._linked and (
            2 * self._bytes > self._max_bytes or 2 * self._count > self._limit
        ):
            self.begin_spill()
        return shed

    def next(self) -> Item | None:
        """Return the Item to send next, None when nothing waits; it stays until `sent`."""
        for priority in PRIORITIES:
            if self._spill is not None and priority == PRIORITIES[1] and len(self._spill):
                item = self._from_spill()
                if item is not None or (self._spill is not None and len(self._spill)):
                    return item
            waiting = self.waiting[priority]
            if waiting:
                item = waiting[0]
                if item.waited:
                    # Retained state says what is now, whenever it is sent.
                    if self._mark is not None and not item.retain:
                        size = item.size()
                        item.data = self._mark(item.data)
                        self._bytes += item.size() - size
                    item.waited = False
                return item
        return None

    def sent(self, item: Item) -> None:
        """The link took the item: QoS 0 is done, QoS 1 is in flight until `acked`."""
        if item.spilled:
            item.in_flight = item.qos > 0
            self._spill.sent(item)
            return
        waiting = self.waiting[item.priority]
        if item not in waiting:
            return  # shed after `next`: gone already, and counted
        item.attempts += 1
        if item.qos:
            waiting.remove(item)
            item.in_flight = True
            self._in_flight.append(item)
        else:
            self._forget(item)

    def acked(self, item: Item) -> None:
        """The PUBACK of an in-flight item came; one for anything else changes nothing."""
        if item.in_flight and item.spilled:
            item.in_flight = False
            self._spill.acked()
        elif item.in_flight:
            item.in_flight = False
            self._in_flight.remove(item)
            self._count -= 1
            self._bytes -= item.size()

    def link_lost(self) -> None:
        """Bring in-flight items back, in order; all that waits now has waited through an outage."""
        self._linked = False
        if self._spill is not None:
            self._spill.link_lost()
        while self._in_flight:
            item = self._in_flight.pop()
            item.in_flight = False
            self.waiting[item.priority].insert(0, item)
        for priority in PRIORITIES:
            for item in self.waiting[priority]:
                item.waited = True

    def link_up(self) -> None:
        """The link is there: what is put from now on is fresh."""
        self._linked = True
        if self._to_spill is not None:
            self._to_spill = None
            self._spill.abandon()

    def allow(self, max_bytes: int) -> None:
        """Take so many bytes of the heap from now on; what is here already stays."""
        self._max_bytes = max_bytes

    def shrink(self) -> bool:
        """Shed half of what waits, and take no more until `allow`; whether anything was shed."""
        half = self._bytes // 2
        self._max_bytes = max(_LEAST_BYTES, half)
        some = self._spill_all()
        while self._bytes > half:
            shed = self._least(PRIORITIES[0])
            if shed is None:
                break
            self._forget(shed)
            self._note_drop(shed)
            some = True
        return some

    def begin_spill(self) -> None:
        """Bring what waits to the flash, a message with each `spill_step`."""
        if self._spill is None or self._linked or self._to_spill is not None:
            return
        todo = [each for name in PRIORITIES for each in self.waiting[name] if not each.retain]
        if todo:
            self._to_spill = todo
            self._spilled = 0

    def spill_step(self) -> bool:
        """Write one message; whether there is more to do."""
        todo = self._to_spill
        if todo is None:
            return False
        try:
            item = todo[self._spilled]
            data = item.data if self._mark is None else self._mark(item.data)
            full = self._spill.write(item, data)
            self._spilled += 1
            if full or self._spilled == len(todo):
                lost, seqs = self._spill.close()
                self.dropped += lost
                for seq in seqs:
                    self._note_range(seq)
                for item in todo[: self._spilled]:
                    if item in self.waiting[item.priority]:
                        self._forget(item)
                self._to_spill = todo[self._spilled :] or None
                self._spilled = 0
        except OSError as error:
            # A flash that is full or worn out takes no more until the next boot.
            self.spill_error = repr(error)
            self._to_spill = None
            self._give_up()
        return self._to_spill is not None

    def take_drops(self) -> list[list[int]]:
        """Sequence ranges [[first, last]…] that will never come, since the last call.

        They tell shed and superseded messages from lost ones; the newest 16 ranges are kept.
        """
        drops = self._drops
        self._drops = []
        return drops

    def _spill_all(self) -> bool:
        """Bring all to the flash at once; whether there is more room now."""
        before = self._bytes
        self.begin_spill()
        while self.spill_step():
            pass
        return self._bytes < before

    def _from_spill(self) -> Item | None:
        try:
            found: Item | None = self._spill.next()
        except OSError as error:
            self.spill_error = repr(error)
            self._give_up()
            return None
        return found

    def _give_up(self) -> None:
        spill, self._spill = self._spill, None
        try:
            spill.abandon()
        except OSError:
            return  # it cannot be removed either; the next boot reads what is whole of it

    def _least(self, priority: str) -> Item | None:
        """The item to shed for one of this priority, None when all others matter more."""
        place = len(PRIORITIES) - 1
        while not self.waiting[PRIORITIES[place]] and PRIORITIES[place] != priority:
            place -= 1
        waiting = self.waiting[PRIORITIES[place]]
        return waiting[0] if waiting else None

    def _supersede(self, topic: str) -> None:
        for priority in PRIORITIES:
            for item in self.waiting[priority]:
                if item.retain and item.topic == topic:
                    self._forget(item)
                    self._note_range(item.seq)
                    self.superseded += 1
                    return

    def _forget(self, item: Item) -> None:
        self.waiting[item.priority].remove(item)
        self._count -= 1
        self._bytes -= item.size()

    def _note_drop(self, item: Item) -> None:
        self.dropped += 1
        self._note_range(item.seq)

    def _note_range(self, seq: int) -> None:
        if seq == NO_SEQ:
            return
        for drop in self._drops:
            if drop[1] + 1 == seq:
                drop[1] = seq
                return
            if drop[0] - 1 == seq:
                drop[0] = seq
                return
        self._drops.append([seq, seq])
        if len(self._drops) > _RANGES:
            del self._drops[0]
