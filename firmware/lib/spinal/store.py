"""Objects kept across power cuts: two copies, the older one overwritten, a checksum on each."""

import json
from binascii import crc32
from struct import calcsize, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADER = ">4sIII"  # magic, generation, length and CRC-32 of what follows the magic
_HEADER_SIZE = calcsize(_HEADER)
_MAGIC = b"NV1\n"
_ENOENT = 2
_DAMAGED = -1
_MISSING = -2
_NAME = "abcdefghijklmnopqrstuvwxyz0123456789_-"

SIZE_LIMIT = 32768
"""Bytes of JSON in one object."""


class StoreError(Exception):
    """An object cannot be read or written; code "corrupt", "oversize" or "bad_name"."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Store:
    """A folder of named JSON objects, each as NAME.a and NAME.b.

    A cut at any byte of a write leaves the object before or the object after. fsync is called
    with the open file after each write; None where flush already syncs, as on MicroPython.
    `damaged` counts copies that were found torn or corrupt.
    """

    def __init__(self, folder: str, fsync: "Any" = None) -> None:
        self.damaged = 0
        self._folder = folder
        self._fsync = fsync

    def read(self, name: str) -> "Any":
        """Return the newest whole object, None when it was never written.

        StoreError "corrupt" when both copies are there and neither is whole. A single torn copy
        is a first write that never ended: nothing was promised, so the answer is None.
        """
        first, second = self._generations(name)
        if first == second == _DAMAGED:
            raise StoreError("corrupt", "both copies are damaged: " + self._path(name, ".a, .b"))
        if first < 0 and second < 0:
            return None
        newest = ".a" if _is_newer(first, second) else ".b"
        value: object = json.loads(self._get(self._path(name, newest))[1])
        return value

    def write(self, name: str, value: object) -> None:
        """Replace the object and return once it is on the medium.

        OSError from the file system passes through; StoreError "oversize", "bad_name"; ValueError
        for what JSON cannot say.
        """
        body = json.dumps(value).encode()
        if len(body) > SIZE_LIMIT:
            raise StoreError("oversize", f"{name}: {len(body)} bytes, at most {SIZE_LIMIT}")
        first, second = self._generations(name)
        if first < 0 and second < 0:
            # Both copies at once: after that one damaged copy is never the only one.
            copies, generation = [".a", ".b"], 0
        elif _is_newer(first, second):
            copies, generation = [".b"], first
        else:
            copies, generation = [".a"], second
        generation = (generation + 1) & 0xFFFFFFFF
        counted = pack(">II", generation, len(body))
        checksum = crc32(body, crc32(counted)) & 0xFFFFFFFF
        header = pack(_HEADER, _MAGIC, generation, len(body), checksum)
        for copy in copies:
            self._put(self._path(name, copy), header, body)

    def _generations(self, name: str) -> tuple[int, int]:
        # One after the other and without the bodies: two of them may be too much for a heap.
        return self._get(self._path(name, ".a"))[0], self._get(self._path(name, ".b"))[0]

    def _get(self, path: str) -> tuple[int, bytes]:
        """Generation and body of a whole copy, else _DAMAGED or _MISSING and nothing."""
        try:
            with open(path, "rb") as file:
                header = file.read(_HEADER_SIZE)
                length = unpack(_HEADER, header)[2] if len(header) == _HEADER_SIZE else 0
                # MicroPython sets aside as much as is asked for, so no more is asked for than the
                # header names, and one byte to see that nothing follows.
                body = file.read(min(length, SIZE_LIMIT) + 1)
        except OSError as error:
            if error.errno == _ENOENT:
                return _MISSING, b""
            raise
        if len(header) == _HEADER_SIZE:
            magic, generation, length, checksum = unpack(_HEADER, header)
            counted = pack(">II", generation, length)
            whole = magic == _MAGIC and length == len(body)
            if whole and crc32(body, crc32(counted)) & 0xFFFFFFFF == checksum:
                return generation, body
        self.damaged += 1
        return _DAMAGED, b""

    def _put(self, path: str, header: bytes, body: bytes) -> None:
        with open(path, "wb") as file:
            file.write(header)
            file.write(body)
            file.flush()
            if self._fsync is not None:
                self._fsync(file)

    def _path(self, name: str, copy: str) -> str:
        if name.strip(_NAME):
            raise StoreError("bad_name", f"{name!r} is no name for a stored object")
        return self._folder + "/" + name + copy


def _is_newer(generation: int, other: int) -> bool:
    """Whether a copy is newer than another one, which may be damaged or missing."""
    if generation < 0 or other < 0:
        return generation >= 0
    return (generation - other) & 0xFFFFFFFF < 0x80000000  # noqa: PLR2004 - half the counter
