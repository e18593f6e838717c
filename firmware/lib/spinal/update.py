"""Takes an application over MQTT: offered, proven, fetched in chunks, checked, started on trial.

The manifest lies on the flash as `update.txt`, so a board that was cut off goes on where it was.
Its lines are what was signed: `VERSION CHUNK_SIZE COUNT`, then `SIZE SHA256 PATH` for each file,
each line with its newline; the signature stands in a last line of its own. Signed is
LABEL + SHA-256 of those lines, which is one block for the SHA-512 of Ed25519.

All work is done in slices by `step`, so that the loop goes on; only the free slot is written to.
"""

import gc
import hashlib
import os
from binascii import a2b_base64, hexlify, unhexlify

from spinal import compat
from spinal.ed25519 import SIGNATURE_BYTES, verify_slices
from spinal.ticks import elapsed, later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from slots import Slots
    from spinal.runtime import Runtime

LABEL = b"nervus:update:1\n"
MANIFEST = "update.txt"

_MARK = "manifest"  # in a slot: the digest of the manifest that its files are of
_HEAD_FIELDS = 3
_READ_BYTES = 512
_ANSWER_MS = 10000
_RESTART_WITHIN_MS = 5000
_ASKED_OFTEN = 30
_FILE_TRIES = 3
_SPARE_BYTES = 16384
_ROM = "/rom/"  # where MicroPython mounts the partition from which modules run in place
# Of an application's files seven tenths are loaded and stay in the heap; the rest is seldom needed.
_LOADED_TENTHS = 7
_SPARE_HEAP = 12288
_DIRECTORY = 0x4000


class UpdateError(Exception):
    """An update that cannot go on; `stage`, `code` and the text are what is reported."""

    def __init__(self, stage: str, code: str, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.stage = stage
        self.code = code
        self.status = "refused" if refused else "failed"


class Update:
    """One update at a time.

    slots: see `slots`. keys: public keys in hexadecimal, any of which may sign. running: version of
    the application that runs. tell(version, stage, status, error) reports, ask(version, path,
    offset) requests a chunk. room() says how much heap an application may take beside what is in
    use, in bytes; None where the one that runs makes room for it. `installed` is True once the next
    boot starts the new application.
    """

    def __init__(
        self,
        slots: "Slots",
        keys: list,
        running: str,
        tell: "Callable[..., None]",
        ask: "Callable[..., None]",
        room: "Callable[[], int | None]",
    ) -> None:
        self.installed = False
        self._room = room
        self._slots = slots
        self._keys = keys
        self._running = running
        self._tell = tell
        self._ask = ask
        self._work: Any = None
        self._version = ""
        self._chunk_size = 0
        self._wanted: Any = None  # path, offset and length of the chunk that is waited for
        self._data: bytes | None = None
        self._ask_at = 0
        self._asked = 0
        if _exists(MANIFEST):
            self._begin()

    def offer(self, payload: dict) -> None:
        """Take an UpdateOffer, or report why not. The offer that is being taken changes nothing."""
        try:
            text = self._admitted(payload)
            if self._work is not None and _signed_part(MANIFEST) == text:
                return
            self._fits(payload)
        except UpdateError as error:
            self._report(payload["version"], error)
            return
        self._abandon()
        with open(MANIFEST, "w") as file:
            file.write(text)
            file.write(payload["signature"] + "\n")
        self._begin()

    def chunk(self, payload: dict) -> None:
        """Take a Chunk; one that was not asked for is not needed."""
        path, offset, length = self._wanted or (None, 0, 0)
        if payload["version"] != self._version or payload["path"] != path:
            return
        if payload["offset"] != offset:
            return
        data = payload["data"]
        if isinstance(data, str):
            data = a2b_base64(data)
        if len(data) == length:
            self._data = data

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do and nothing to keep: it was refused, or it failed."""
        return self._work is None and not self.installed

    def link_up(self) -> None:
        """What was asked for on the lost connection is asked for again at once."""
        self._asked = 0

    def step(self, ticks_ms: int, *, linked: bool) -> bool:
        """Do one slice of work; whether there is more to do at once."""
        if self._work is None:
            return False
        if self._wanted is not None and self._data is None:
            if linked and (self._asked == 0 or elapsed(ticks_ms, self._ask_at) >= 0):
                self._request(ticks_ms)
            return False
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        except UpdateError as error:
            version = self._version
            self._abandon()
            self._report(version, error)
        except OSError as error:
            version = self._version
            self._abandon()
            self._report(version, UpdateError("download", "flash_failed", repr(error)))
        return self._work is not None

    def _request(self, ticks_ms: int) -> None:
        if self._asked >= _ASKED_OFTEN:
            version, path = self._version, self._wanted[0]
            self._abandon()
            text = "no answer to %d requests for %s" % (_ASKED_OFTEN, path)
            self._report(version, UpdateError("download", "no_chunk", text))
            return
        self._asked += 1
        self._ask_at = later(ticks_ms, _ANSWER_MS)
        self._ask(self._version, self._wanted[0], self._wanted[1])

    def _admitted(self, payload: dict) -> str:
        """The text to be signed; UpdateError when this board must not take the offer."""
        version = payload["version"]
        if self._slots.trial or self.installed:
            # Installed, it waits for the restart: another one now would take the way back.
            raise _refusal("on_trial", "an application is on trial; offer it again later")
        if not self._keys:
            raise _refusal("no_key", "node.json names no update_keys: nothing can be proven")
        if version == self._slots.refused:
            raise _refusal("taken_back", "%s did not run here and was taken back" % version)
        if _number(version) <= _number(self._running):
            raise _refusal("not_newer", "%s runs here, %s is not newer" % (self._running, version))
        paths = set()
        lines = ["%s %d %d\n" % (version, payload["chunk_size"], len(payload["files"]))]
        for file in payload["files"]:
            paths.add(file["path"])
            lines.append("%d %s %s\n" % (file["size"], file["sha256"], file["path"]))
        if len(paths) < len(lines) - 1 or _MARK in paths:
            raise _refusal("bad_paths", "a path is named twice, or is %s" % _MARK)
        return "".join(lines)

    def _fits(self, payload: dict) -> None:
        """UpdateError when there is no room for it. While it is taken there is less than before."""
        total = sum([file["size"] for file in payload["files"]])
        free = _free_bytes()
        if free is not None and total + _SPARE_BYTES > free + _used(self._slots.free()):
            raise _refusal("no_space", "%d bytes do not fit, %d are free" % (total, free))
        room = self._room()
        if room is not None and total * _LOADED_TENTHS // 10 > room:
            # It would be taken back after three boots without a memory, and not a reflex meanwhile.
            text = "%d bytes of modules, and %d of heap to run them in: flash it" % (total, room)
            raise _refusal("no_memory", text)

    def _begin(self) -> None:
        self._work = self._all()

    def _all(self) -> "Generator[None, None, None]":
        version, self._chunk_size, count, digest, signature = yield from _read_manifest()
        self._version = version
        yield from self._prove(digest, signature)
        self._tell(version, "offer", "succeeded", None)
        slot = self._slots.free()
        if _contents(slot + "/" + _MARK) != hexlify(digest):
            # The mark goes first: whatever is cut off here begins with emptying the slot again.
            yield from _emptied(slot)
            with open(_made(slot + "/" + _MARK), "wb") as file:
                file.write(hexlify(digest))
        self._tell(version, "download", "running", None)
        for index in range(count):
            yield from self._file(slot, *_line(index))
        self._tell(version, "verify", "succeeded", None)
        # First the manifest: left lying it would be taken for an update of the other slot.
        os.remove(MANIFEST)
        self._slots.install(version)
        self.installed = True
        self._tell(version, "install", "succeeded", None)

    def _prove(self, digest: bytes, signature: bytes) -> "Generator[None, None, None]":
        for key in self._keys:
            if (yield from verify_slices(unhexlify(key), LABEL + digest, signature)):
                return
        raise _refusal("bad_signature", "none of this board's update_keys signed it")

    def _file(self, slot: str, size: int, sha256: str, path: str) -> "Generator[None, None, None]":
        name = slot + "/" + path
        for _ in range(_FILE_TRIES):
            done, digest = yield from self._kept(name, size)
            while done < size:
                self._wanted = (path, done, min(self._chunk_size, size - done))
                self._asked = 0
                while self._data is None:
                    yield
                with open(_made(name), "ab") as file:
                    file.write(self._data)
                digest.update(self._data)
                done += len(self._data)
                self._wanted = self._data = None
                yield
            if size == 0:
                open(_made(name), "wb").close()
            if hexlify(digest.digest()).decode() == sha256:
                return
            os.remove(name)
        text = "%s came %d times and wrong" % (path, _FILE_TRIES)
        raise UpdateError("verify", "bad_digest", text)

    def _kept(self, name: str, size: int) -> "Generator[None, None, tuple]":
        """How many bytes of a file are there already, and the running digest of them."""
        digest = hashlib.sha256()
        done = 0
        if _exists(name):
            with open(name, "rb") as file:
                data = file.read(_READ_BYTES)
                while data:
                    digest.update(data)
                    done += len(data)
                    yield
                    data = file.read(_READ_BYTES)
            if done > size or (done < size and done % self._chunk_size):
                # Cut off in the middle of a chunk; there is no way to take some bytes back.
                os.remove(name)
                return 0, hashlib.sha256()
        return done, digest

    def _abandon(self) -> None:
        self._work = self._wanted = self._data = None
        if _exists(MANIFEST):
            os.remove(MANIFEST)

    def _report(self, version: str, error: UpdateError) -> None:
        kind = "retriable" if error.code in ("on_trial", "no_chunk", "flash_failed") else "terminal"
        details = {"code": error.code, "message": str(error)[:256], "kind": kind}
        self._tell(version, error.stage, error.status, details)


class Updates:
    """The update of one board: its offers and chunks, what it tells the hub, its restart."""

    def __init__(self, board: "Runtime", slots: "Slots", version: str) -> None:
        self._board = board
        self._slots = slots
        self._version = version
        self._told = not (slots.trial or slots.taken_back)
        self._restart_at: int | None = None
        keys = board.node["update_keys"]
        self._update = Update(slots, keys, version, self.tell, self._ask, _room)

    def offer(self, payload: dict) -> None:
        """An application is offered."""
        self._update.offer(payload)

    def chunk(self, payload: dict) -> None:
        """A piece of it."""
        self._update.chunk(payload)

    def step(self) -> bool:
        """One slice of work; whether there is more to do at once."""
        board = self._board
        busy = self._update.step(board.ticks_ms, linked=board.linked)
        if self._update.installed and self._restart_at is None:
            self._restart_at = later(board.ticks_ms, _RESTART_WITHIN_MS)
        return busy

    def each_second(self) -> bool:
        """Restart when all is told; returns whether there is nothing to be here for any more."""
        board = self._board
        if self._restart_at is not None:
            waited = elapsed(board.ticks_ms, self._restart_at) >= 0
            if waited or not len(board.outbox):
                board.log("restart into the new application")
                self._slots.restarting()
                compat.restart()
        return self._told and self._update.idle

    def link_up(self) -> None:
        """Say once what became of the last update, and ask again for what was asked for."""
        self._update.link_up()
        if self._told:
            return
        self._told = True
        if self._slots.taken_back:
            refused = self._slots.refused
            text = "%s did not get through its trial; %s runs" % (refused, self._version)
            error = {"code": "taken_back", "message": text, "kind": "terminal"}
            self.tell(refused, "rollback", "succeeded", error)
        elif self._slots.trial:
            self.tell(self._version, "probation", "running", None)

    def tell(self, version: str, stage: str, status: str, error: dict | None) -> None:
        """Report to the hub."""
        board = self._board
        board.log("update %s: %s %s %s" % (version, stage, status, error or ""))
        payload: dict = {"version": version, "stage": stage, "status": status}
        if error is not None:
            payload["error"] = error
        board.outgoing.about_board("UpdateReport", payload, board.ticks_ms)

    def _ask(self, version: str, path: str, offset: int) -> None:
        payload = {"version": version, "path": path, "offset": offset}
        self._board.outgoing.about_board("ChunkRequest", payload, self._board.ticks_ms)


def _room() -> int | None:
    """Heap for an application that comes by update, where the flashed one runs in place."""
    if not __file__.startswith(_ROM):
        return None
    gc.collect()
    return max(0, gc.mem_free() - _SPARE_HEAP)


def _refusal(code: str, text: str) -> UpdateError:
    return UpdateError("offer", code, text, refused=True)


def _number(version: str) -> tuple:
    """1.4.2 as (1, 4, 2); UpdateError for anything but numbers and dots."""
    try:
        return tuple([int(part) for part in version.split(".")])
    except ValueError:
        raise _refusal("bad_version", "%s: numbers and dots only" % version) from None


def _signed_part(name: str) -> str:
    with open(name) as file:
        return "".join([line for line in file if " " in line])


def _read_manifest() -> "Generator[None, None, tuple]":
    """Returns version, chunk size, count, digest and signature; UpdateError for a torn one."""
    digest = hashlib.sha256()
    signature = ""
    head: list = []
    count = -1
    with open(MANIFEST) as file:
        for line in file:
            if " " in line:
                digest.update(line.encode())
                head = head or line.split()
                count += 1
            else:
                signature = line.strip()
            yield
    whole = len(head) == _HEAD_FIELDS and int(head[2]) == count
    if len(signature) != 2 * SIGNATURE_BYTES or not whole:
        raise UpdateError("offer", "torn", "the kept offer is torn; offer it again")
    return head[0], int(head[1]), count, digest.digest(), unhexlify(signature)


def _line(index: int) -> tuple:
    """Size, digest and path of a file of the manifest."""
    with open(MANIFEST) as file:
        for _ in range(index + 1):
            file.readline()
        size, sha256, path = file.readline().split()
    return int(size), sha256, path


def _exists(name: str) -> bool:
    try:
        os.stat(name)
    except OSError:
        return False
    return True


def _contents(name: str) -> bytes:
    if not _exists(name):
        return b""
    with open(name, "rb") as file:
        return file.read()


def _made(name: str) -> str:
    """The name, its folders made."""
    parts = name.split("/")
    for position in range(1, len(parts)):
        folder = "/".join(parts[:position])
        if not _exists(folder):
            os.mkdir(folder)
    return name


def _emptied(folder: str) -> "Generator[None, None, None]":
    """Remove what is in a folder, its mark first."""
    if _exists(folder + "/" + _MARK):
        os.remove(folder + "/" + _MARK)
    if not _exists(folder):
        return
    for name in os.listdir(folder):
        path = folder + "/" + name
        if os.stat(path)[0] & _DIRECTORY:
            yield from _emptied(path)
            os.rmdir(path)
        else:
            os.remove(path)
        yield


def _used(folder: str) -> int:
    """Bytes of the files in a folder, which the update may overwrite."""
    total = 0
    for name in os.listdir(folder) if _exists(folder) else ():
        path = folder + "/" + name
        status = os.stat(path)
        total += _used(path) if status[0] & _DIRECTORY else status[6]
    return total


def _free_bytes() -> int | None:
    if not hasattr(os, "statvfs"):
        return None
    status = os.statvfs(".")
    return status[0] * status[3]
