"""An application as the hub packs and offers it, signed with a key of the tests."""

import base64
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nervus import updates

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = SIGNER.public_key().public_bytes_raw().hex()
CHUNK = 64


@dataclass(frozen=True)
class Pack:
    """Files of one version; unlike `nervus.updates.Pack.check` it takes what boards refuse."""

    version: str
    files: dict[str, bytes]
    chunk_size: int = CHUNK
    octets: bool = False

    def signed(self, signer: Ed25519PrivateKey = SIGNER) -> updates.Pack:
        """The pack of the product."""
        return updates.Pack.signed(self.version, self.files, signer, self.chunk_size)

    def offer(self, signer: Ed25519PrivateKey = SIGNER) -> dict[str, Any]:
        """The UpdateOffer payload."""
        return self.signed(signer).offer.model_dump(exclude_none=True)

    def chunk(self, path: str, offset: int) -> dict[str, Any]:
        """The Chunk payload that answers a request: as JSON has it, or as `octets` from CBOR."""
        octets = self.signed().chunk(path, offset)
        data = octets if self.octets else base64.b64encode(octets).decode()
        return {"version": self.version, "path": path, "offset": offset, "data": data}
