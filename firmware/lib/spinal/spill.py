"""What waits for the link, on the flash: segments that are written once and read once.

A segment is a file `wait-0000002a`, numbered by age, of records: a CRC-32 of what follows it, the
length of topic and data, the length of the topic, flags, the seq, topic, data. A cut while one is
written leaves the first of its records, or none; it counts once it is closed. It is removed when
all of it is with the broker, so a cut before that sends it again: its messages keep their ids, by
which the hub tells a second one. When the limit is reached, or the flash is about to be full, the
oldest segment goes: a board whose flash is full can keep neither a command nor its boots.
"""

import os
from binascii import crc32
from struct import calcsize, pack, unpack

from spinal.outbox import PRIORITIES, Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEGMENT = 8192
"""Bytes after which a segment is closed: a flash erases blocks for it, not for each message."""

_NAME = "wait-"
_HEAD = ">IHHBI"
_HEAD_SIZE = calcsize(_HEAD)
_CRC_SIZE = 4
_ENOSPC = 28
_SPARE = 32768  # for a ledger in two copies, rules, and what the file system itself needs
_QOS = 4  # above the two bits of the priority


class Spill:
    """The segments in a folder, `limit_bytes` at most together.

    fsync: as for `spinal.store`. OSError of the file system passes through. damaged: records that
    were found torn or corrupt; with one the rest of its segment is lost.
    """

    def __init__(self, folder: str, limit_bytes: int, fsync: "Any" = None) -> None:
        self.damaged = 0
        self._folder = folder
        self._limit = limit_bytes
        self._fsync = fsync
        self._sizes: dict[int, int] = {}
        for name in os.listdir(folder):
            if name.startswith(_NAME):
                number = int(name[len(_NAME) :], 16)
                self._sizes[number] = os.stat(self._path(number))[6]
        self._first_of_boot = max(self._sizes) + 1 if self._sizes else 0
        self._new = self._first_of_boot
        self._out: Any = None
        self._written = 0
        self._next: Item | None = None
        self._at = 0
        self._ended = False
        self._flying = 0

    def __len__(self) -> int:
        """Closed segments that are not yet with the broker."""
        return len(self._sizes)

    # Writing.

    def write(self, item: Item, data: bytes) -> bool:
        """Add a message to the segment at hand; whether that should be closed now."""
        if self._out is None:
            if not self._sizes and self._crowded():
                raise OSError(_ENOSPC)
            self._out = open(self._path(self._new), "wb")  # noqa: SIM115 - closed by `close`
            self._written = 0
        topic = item.topic.encode()
        flags = PRIORITIES.index(item.priority) | (_QOS if item.qos else 0)
        head = pack(_HEAD, 0, len(topic) + len(data), len(topic), flags, item.seq)[_CRC_SIZE:]
        checksum = crc32(data, crc32(topic, crc32(head))) & 0xFFFFFFFF
        self._out.write(pack(">I", checksum) + head)
        self._out.write(topic)
        self._out.write(data)
        self._written += _HEAD_SIZE + len(topic) + len(data)
        return self._written >= SEGMENT

    def close(self) -> "tuple[int, list[int]]":
        """The segment is on the medium when this returns.

        Returns how many messages of older segments gave way, and the seqs of those of this boot.
        """
        out, self._out = self._out, None
        out.flush()
        if self._fsync is not None:
            self._fsync(out)
        out.close()
        self._sizes[self._new] = self._written
        self._new += 1
        lost = 0
        seqs: list[int] = []
        while len(self._sizes) > 1 and (sum(self._sizes.values()) > self._limit or self._crowded()):
            number = min(self._sizes)
            at = 0
            item = self._record(number, at)
            while item is not None:
                lost += 1
                if number >= self._first_of_boot:
                    seqs.append(item.seq)
                at += _size(item)
                item = self._record(number, at)
            self._remove(number)
        return lost, seqs

    def abandon(self) -> None:
        """Forget the segment at hand; what it holds still waits elsewhere."""
        if self._out is not None:
            out, self._out = self._out, None
            out.close()
            os.remove(self._path(self._new))

    # Reading.

    def next(self) -> Item | None:
        """The message to send next, until `sent`; None too while the last of a segment fly."""
        while self._next is None and self._sizes:
            number = min(self._sizes)
            if not self._ended:
                self._next = self._record(number, self._at)
                self._ended = self._next is None
            elif self._flying:
                return None
            else:
                self._remove(number)
        return self._next

    def sent(self, item: Item) -> None:
        """The link took it: QoS 0 is done, QoS 1 flies until `acked`."""
        self._at += _size(item)
        self._next = None
        if item.qos:
            self._flying += 1

    def acked(self) -> None:
        """The broker has one of those that fly."""
        self._flying -= 1

    def link_lost(self) -> None:
        """The segment at hand will be sent again from its beginning."""
        self._rewind()

    def _crowded(self) -> bool:
        """Whether the flash has no room for another segment beside what else a board keeps."""
        status = os.statvfs(self._folder)
        return status[0] * status[3] < SEGMENT + _SPARE

    def _record(self, number: int, at: int) -> Item | None:
        """The message at a place of a segment, None at its end or where it is broken."""
        with open(self._path(number), "rb") as file:
            file.seek(at)
            head = file.read(_HEAD_SIZE)
            if not head:
                return None
            length = unpack(_HEAD, head)[1] if len(head) == _HEAD_SIZE else 0
            body = file.read(length)
        if len(head) == _HEAD_SIZE and len(body) == length:
            checksum, length, topic_length, flags, seq = unpack(_HEAD, head)
            if crc32(body, crc32(head[_CRC_SIZE:])) & 0xFFFFFFFF == checksum:
                topic = body[:topic_length].decode()
                priority = PRIORITIES[flags & (_QOS - 1)]
                qos = 1 if flags & _QOS else 0
                item = Item(topic, body[topic_length:], qos, False, priority, seq)  # noqa: FBT003 - state is never here
                item.spilled = True
                return item
        self.damaged += 1
        return None

    def _remove(self, number: int) -> None:
        os.remove(self._path(number))
        del self._sizes[number]
        self._rewind()

    def _rewind(self) -> None:
        self._next = None
        self._at = self._flying = 0
        self._ended = False

    def _path(self, number: int) -> str:
        return "%s/%s%08x" % (self._folder, _NAME, number)


def _size(item: Item) -> int:
    """Bytes of its record."""
    return _HEAD_SIZE + len(item.topic.encode()) + len(item.data)
