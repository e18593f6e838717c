"""A pack: the files of one version of the boards' application in one signed file.

The file is a ZIP archive that any tool lists, stored and not compressed: `manifest.txt`,
`signature.txt`, then `files/PATH` in the manifest's order. The manifest is what a board keeps as
`update.txt`: `VERSION CHUNK_SIZE COUNT`, then `SIZE SHA256 PATH` for each file, each line with its
newline. Signed by Ed25519 is LABEL + SHA-256 of those lines. `signature.txt` has the signature and
the public key it is to be checked with, both in hexadecimal; whether to trust that key each board
decides. The same input gives the same bytes, on any machine and at any time.
"""

import hashlib
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from nervus.errors import NervusError
from nervus.wire.contracts import UpdateFile, UpdateOfferPayload

LABEL: Final = b"nervus:update:1\n"
"""What a board puts before the digest it checks, so that a signature is of nothing else."""

CHUNK_SIZE: Final = 1_024
"""Bytes of a chunk: the most that the contract allows."""

PACK_LIMIT: Final = 4 * 1_048_576
"""Bytes of the largest pack that is read; a board's flash has less."""

OFFER_LIMIT: Final = 7_680
"""Bytes of the offer as JSON: its topic takes 8,192, envelope included."""

_MANIFEST: Final = "manifest.txt"
_SIGNATURE: Final = "signature.txt"
_FILES: Final = "files/"
_VERSION: Final = re.compile(r"\d{1,9}(\.\d{1,9}){0,3}")
_RESERVED: Final = "manifest"
# What the library raises for archives that are damaged, encrypted or compressed in its own ways.
_NO_ARCHIVE: Final = (
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
)
# The first moment that a ZIP archive can name, and plain files of Unix: nothing of this machine.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16


class PackError(NervusError):
    """This is no pack, it was altered, or no board could take what it holds."""


@dataclass(frozen=True)
class Pack:
    """One signed version. `signed` and `read` make it, `check` says whether boards can take it.

    Attributes:
        version: Numbers and dots, such as 1.4.2; boards take only a higher one.
        files: Path on the board → content, in the order in which boards fetch them.
        chunk_size: Bytes of a chunk, 64 to 1,024.
        signature: Ed25519, hexadecimal.
        key: The public key that checks it, hexadecimal.
    """

    version: str
    files: Mapping[str, bytes]
    chunk_size: int
    signature: str
    key: str

    @classmethod
    def signed(
        cls,
        version: str,
        files: Mapping[str, bytes],
        signer: Ed25519PrivateKey,
        chunk_size: int = CHUNK_SIZE,
    ) -> Self:
        """Sign files as one version; nothing is checked."""
        signature = signer.sign(_to_sign(_manifest(version, chunk_size, files))).hex()
        key = signer.public_key().public_bytes_raw().hex()
        return cls(version, dict(files), chunk_size, signature, key)

    @classmethod
    def read(cls, data: bytes, where: str) -> Self:
        """Take a pack from its bytes; every digest and the signature fit.

        Args:
            data: The file.
            where: Its name, for errors.

        Raises:
            PackError: It is none, it was altered, or no board could take it.
        """
        if len(data) > PACK_LIMIT:
            raise PackError(f"{len(data)} bytes, at most {PACK_LIMIT} are read", where=where)
        try:
            pack = cls._unzipped(data)
        except _NO_ARCHIVE as error:
            raise PackError(
                f"this is no pack, or a damaged one ({error})",
                where=where,
                hint="make it with `nervus update pack`, and copy it whole",
            ) from error
        pack.check(where)
        try:
            pack.verify()
        except (InvalidSignature, ValueError) as error:
            raise PackError(
                "its signature does not fit: it was altered after it was signed",
                where=where,
                hint="make it anew with `nervus update pack`",
            ) from error
        if pack.data != data:
            raise PackError(
                "there is more in this file than a pack has",
                where=where,
                hint="make it anew with `nervus update pack`",
            )
        return pack

    @cached_property
    def manifest(self) -> str:
        """What is signed: the lines of the manifest."""
        return _manifest(self.version, self.chunk_size, self.files)

    @cached_property
    def data(self) -> bytes:
        """The pack as a file."""
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            members = {
                _MANIFEST: self.manifest.encode(),
                _SIGNATURE: f"{self.signature}\n{self.key}\n".encode(),
                **{_FILES + path: content for path, content in self.files.items()},
            }
            for name, content in members.items():
                member = zipfile.ZipInfo(name, _DATE)
                member.create_system, member.external_attr = 3, _MODE
                archive.writestr(member, content)
        return buffer.getvalue()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pack as a file, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    @cached_property
    def offer(self) -> UpdateOfferPayload:
        """What a board is offered; pydantic.ValidationError if no board could take it."""
        files = [
            UpdateFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
            for path, content in self.files.items()
        ]
        return UpdateOfferPayload(
            version=self.version,
            chunk_size=self.chunk_size,
            files=files,
            signature=self.signature,
        )

    @cached_property
    def number(self) -> tuple[int, ...]:
        """The version as boards compare it."""
        return version_number(self.version)

    def chunk(self, path: str, offset: int) -> bytes:
        """A chunk of a file.

        Raises:
            KeyError: There is no such file.
            ValueError: No chunk begins at `offset`.
        """
        content = self.files[path]
        if offset % self.chunk_size or offset >= len(content):
            raise ValueError(f"no chunk of {path} begins at {offset}")
        return content[offset : offset + self.chunk_size]

    def position(self, path: str, offset: int) -> int:
        """How many bytes come before an offset of a file, in the order in which boards fetch."""
        return self._begins[path] + offset

    def check(self, where: str) -> None:
        """Hold it against what boards take.

        Raises:
            PackError: No board could take it; says which rule it breaks.
        """
        check_version(self.version, where)
        if _RESERVED in self.files:
            raise PackError(
                f"a file is called {_RESERVED!r}: boards keep that name",
                where=where,
                hint="give it another name",
            )
        try:
            size = len(self.offer.model_dump_json())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            rule = ".".join(str(part) for part in first["loc"])
            given = f" {first['input']!r}" if isinstance(first["input"], str | int) else ""
            raise PackError(f"{rule}{given}: {first['msg']}", where=where) from error
        if size > OFFER_LIMIT:
            raise PackError(
                f"its offer takes {size} bytes, boards read {OFFER_LIMIT}",
                where=where,
                hint="fewer files, or shorter paths",
            )

    def verify(self) -> None:
        """Check the signature; raises InvalidSignature, ValueError for a key that is none."""
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
        key.verify(bytes.fromhex(self.signature), _to_sign(self.manifest))

    @cached_property
    def _begins(self) -> dict[str, int]:
        begins, at = {}, 0
        for path, content in self.files.items():
            begins[path] = at
            at += len(content)
        return begins

    @classmethod
    def _unzipped(cls, data: bytes) -> Self:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("compressed")
            contents = {member.filename: archive.read(member) for member in members}
        manifest = contents.pop(_MANIFEST).decode()
        signature, key = contents.pop(_SIGNATURE).decode().splitlines()
        version, chunk_size, _ = manifest.partition("\n")[0].split(" ")
        files = {name.removeprefix(_FILES): content for name, content in contents.items()}
        if _manifest(version, int(chunk_size), files) != manifest:
            raise ValueError("its files are not those of its manifest")
        return cls(version, files, int(chunk_size), signature, key)


def check_version(version: str, where: str) -> None:
    """Raise PackError for a version that boards could not compare with theirs."""
    if not _VERSION.fullmatch(version):
        raise PackError(
            f"version {version!r}: boards compare numbers and dots, up to four",
            where=where,
            hint="name one such as 1.4.2",
        )


def version_number(version: str) -> tuple[int, ...]:
    """1.4.2 as (1, 4, 2), as boards compare versions; ValueError for what is no number."""
    return tuple(int(part) for part in version.split("."))


def _manifest(version: str, chunk_size: int, files: Mapping[str, bytes]) -> str:
    lines = [f"{version} {chunk_size} {len(files)}\n"]
    for path, content in files.items():
        lines.append(f"{len(content)} {hashlib.sha256(content).hexdigest()} {path}\n")
    return "".join(lines)


def _to_sign(manifest: str) -> bytes:
    return LABEL + hashlib.sha256(manifest.encode()).digest()
