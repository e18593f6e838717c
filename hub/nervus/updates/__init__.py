"""The updates plane: brings signed applications to boards, and sees each of them through."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.updates.core import Updates
    from nervus.updates.events import Ordered, Withdrawn
    from nervus.updates.orders import DEVICES_LIMIT, Order, Orders, read_pack_file
    from nervus.updates.pack import (
        CHUNK_SIZE,
        LABEL,
        Pack,
        PackError,
        check_version,
        version_number,
    )
    from nervus.updates.reader import NoUpdatesRecordError, UpdatesRecordError, read_record
    from nervus.updates.record import AT_WORK, OPEN, BoardUpdate, Rollout, Seen, State, Stored
    from nervus.updates.settings import UpdatesSettings
else:
    __getattr__ = late(
        __name__,
        {
            "core": ("Updates",),
            "events": ("Ordered", "Withdrawn"),
            "orders": ("DEVICES_LIMIT", "Order", "Orders", "read_pack_file"),
            "pack": ("CHUNK_SIZE", "LABEL", "Pack", "PackError", "check_version", "version_number"),
            "reader": ("NoUpdatesRecordError", "UpdatesRecordError", "read_record"),
            "record": ("AT_WORK", "OPEN", "BoardUpdate", "Rollout", "Seen", "State", "Stored"),
            "settings": ("UpdatesSettings",),
        },
    )

__all__ = [
    "AT_WORK",
    "CHUNK_SIZE",
    "DEVICES_LIMIT",
    "LABEL",
    "OPEN",
    "BoardUpdate",
    "NoUpdatesRecordError",
    "Order",
    "Ordered",
    "Orders",
    "Pack",
    "PackError",
    "Rollout",
    "Seen",
    "State",
    "Stored",
    "Updates",
    "UpdatesRecordError",
    "UpdatesSettings",
    "Withdrawn",
    "check_version",
    "read_pack_file",
    "read_record",
    "version_number",
]
