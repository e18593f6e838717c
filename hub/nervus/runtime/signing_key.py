"""The key that signs applications for boards: one private file."""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nervus.errors import NervusError
from nervus.runtime.files import PRIVATE_FILE, sync_folder


class SigningKeyError(NervusError):
    """There is no usable key at this place."""


def create_key(path: Path) -> Ed25519PrivateKey:
    """Create a key in a new file of mode 0600.

    Raises:
        SigningKeyError: There is something already, or the folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    except FileExistsError as error:
        raise SigningKeyError(
            "there is a file already",
            where=str(path),
            hint="a key is never replaced: boards trust it; name another file with --key",
        ) from error
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        # Half a key, never replaced either, would be in the way of a whole one.
        path.unlink()
        raise _unwritten(path, error) from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a key.

    Raises:
        SigningKeyError: It is missing, readable for others, or no Ed25519 key.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except OSError as error:
        raise SigningKeyError(
            f"there is no key that signs ({error.strerror})",
            where=str(path),
            hint="create one with `nervus update key`, or name yours with --key",
        ) from error
    if mode & 0o077:
        raise SigningKeyError(
            f"others may read this key (mode {mode:04o})",
            where=str(path),
            hint=f"chmod 600 {path}; if somebody may have read it, sign with a new one",
        )
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise SigningKeyError(
            "this is no private key in PEM without a passphrase",
            where=str(path),
            hint="name another with --key; `nervus update key` makes one",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(
            "this is no Ed25519 key, and boards check no other",
            where=str(path),
            hint="create one with `nervus update key --key FILE`",
        )
    return key


def _unwritten(path: Path, error: OSError) -> SigningKeyError:
    return SigningKeyError(
        f"the key cannot be written ({error.strerror})",
        where=str(path),
        hint="make room or mend that, or name another file with --key",
    )


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half as boards are told it: 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()
