"""What a hostile vector is, and what is known of the contract it is of."""

from dataclasses import dataclass
from typing import Any

from generator.schemas import Schema, Schemas


@dataclass(frozen=True)
class Spoiled:
    """Bytes of a message, and the stage and reason by which they are refused; None: taken."""

    name: str
    stage: str | None
    reason_code: str | None
    data: bytes
    twice: bool = False


@dataclass(frozen=True)
class Kind:
    """A contract: its schemas, whether a topic carries it, and whether it is a state."""

    schemas: Schemas
    contract: str
    has_topic: bool
    is_state: bool

    @property
    def meta(self) -> Schema:
        """The fields of the metadata."""
        fields: Schema = self.schemas.envelope["$defs"]["meta"]["properties"]
        return fields

    def key(self, field: str) -> int:
        """The number of a field of the metadata."""
        number: int = self.meta[field]["x-cbor-key"]
        return number

    def payload(self) -> dict[int, tuple[str, Any]]:
        """The fields of the payload by number: name and schema, references followed."""
        root = self.schemas.contracts[self.contract]
        fields = root["properties"]["payload"]["properties"]
        return {
            child["x-cbor-key"]: (name, self.schemas.resolve(child, root)[1])
            for name, child in fields.items()
        }

    @property
    def another(self) -> int:
        """The number of a contract that this one is not."""
        return 1 if self.contract != "AfferentSignal" else 2

    def foreign(self) -> str:
        """The reason of a contract that this topic does not carry; over HTTP none is asked."""
        return "contract_not_allowed" if self.has_topic else "schema_invalid"
