"""An application as a hub offers it: signed, and served in chunks."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spinal.update import LABEL

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = SIGNER.public_key().public_bytes_raw().hex()
CHUNK = 64


@dataclass(frozen=True)
class Pack:
    """Files of one version."""

    version: str
    files: dict[str, bytes]
    chunk_size: int = CHUNK
    octets: bool = False

    def offer(self, signer: Ed25519PrivateKey = SIGNER) -> dict[str, Any]:
        """The UpdateOffer payload."""
        files = [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in self.files.items()
        ]
        lines = [f"{self.version} {self.chunk_size} {len(files)}\n"]
        lines += [f"{each['size']} {each['sha256']} {each['path']}\n" for each in files]
        digest = hashlib.sha256("".join(lines).encode()).digest()
        return {
            "version": self.version,
            "chunk_size": self.chunk_size,
            "files": files,
            "signature": signer.sign(LABEL + digest).hex(),
        }

    def chunk(self, path: str, offset: int) -> dict[str, Any]:
        """The Chunk payload that answers a request: as JSON has it, or as `octets` from CBOR."""
        octets = self.files[path][offset : offset + self.chunk_size]
        data = octets if self.octets else base64.b64encode(octets).decode()
        return {"version": self.version, "path": path, "offset": offset, "data": data}
