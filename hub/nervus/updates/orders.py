"""The folder of orders: `data/updates/ID.json` says which boards get the pack `ID.pack`.

The command line writes the pack first, then the order; deleting the order withdraws it, and
`ID.withdrawn` beside it may say by whom. What is not needed any more the service deletes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nervus.errors import NervusError
from nervus.updates.pack import PACK_LIMIT, Pack, PackError
from nervus.wire.contracts import Ulid

FOLDER: Final = "updates"
"""Below the folder of the stores."""

DEVICES_LIMIT: Final = 256
ORDER_LIMIT: Final = 65_536
"""Bytes of the largest order that is read."""

NAME_LIMIT: Final = 64
"""Characters of who asks for something."""


class OrderError(NervusError):
    """An order cannot be read or is not possible."""


class Order(BaseModel):
    """Who gets the pack of the same name.

    `devices` in the order in which they get it; the first `canary` of them must confirm before the
    others are offered it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    update_id: Ulid
    devices: Annotated[tuple[str, ...], Field(min_length=1, max_length=DEVICES_LIMIT)]
    canary: Annotated[int, Field(ge=0, le=DEVICES_LIMIT)] = 1
    asked_ms: Annotated[int, Field(ge=0)]
    asked_by: Annotated[str, Field(max_length=NAME_LIMIT)]


@dataclass(frozen=True, slots=True)
class Orders:
    """The folder; who writes it does so through these names."""

    path: Path

    @classmethod
    def of(cls, data: Path) -> Self:
        """The orders beside the stores in `data`."""
        return cls(data / FOLDER)

    def order(self, update_id: str) -> Path:
        """Where an order is."""
        return self.path / f"{update_id}.json"

    def pack(self, update_id: str) -> Path:
        """Where its pack is."""
        return self.path / f"{update_id}.pack"

    def withdrawal(self, update_id: str) -> Path:
        """Where it is said who withdrew it."""
        return self.path / f"{update_id}.withdrawn"

    def withdrawn_by(self, update_id: str) -> str:
        """Who withdrew an order; nothing where nobody said so."""
        try:
            return _content(self.withdrawal(update_id), ORDER_LIMIT).decode()[:NAME_LIMIT]
        except (OrderError, UnicodeDecodeError):
            return ""

    def ids(self) -> frozenset[str]:
        """The ids of all orders that are there; a missing folder has none."""
        return frozenset(path.stem for path in self.path.glob("[0-9A-Z]*.json"))

    def read(self, update_id: str) -> tuple[Order, Pack]:
        """Read an order and its pack.

        Raises:
            OrderError: The order is wrong, or one of the two cannot be read.
            PackError: The pack is none.
        """
        path = self.order(update_id)
        try:
            order = Order.model_validate_json(_content(path, ORDER_LIMIT))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            rule = ".".join(str(part) for part in first["loc"]) or "the order"
            raise OrderError(f"{rule}: {first['msg']}", where=str(path)) from error
        if order.update_id != update_id or len(set(order.devices)) < len(order.devices):
            raise OrderError("another update_id, or a board twice", where=str(path))
        return order, self.read_pack(update_id)

    def read_pack(self, update_id: str) -> Pack:
        """Read a pack alone; raises as `read`."""
        path = self.pack(update_id)
        return Pack.read(_content(path, PACK_LIMIT), str(path))

    def tidy(self, ended: frozenset[str]) -> None:
        """Delete the orders and packs of roll-outs that have ended: the order first."""
        for kind in ("json", "pack", "withdrawn"):
            for path in self.path.glob(f"*.{kind}"):
                if path.stem in ended:
                    path.unlink(missing_ok=True)


def read_pack_file(path: Path) -> Pack:
    """Read a pack that a person names.

    Raises:
        PackError: It cannot be read, or is none.
    """
    try:
        return Pack.read(_content(path, PACK_LIMIT), str(path))
    except OrderError as error:
        raise PackError(
            error.what, where=error.where, hint="make one with `nervus update pack`"
        ) from error


def _content(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise OrderError(f"cannot be read ({error.strerror})", where=str(path)) from error
