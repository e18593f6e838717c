"""What the updates plane has stored, for whoever shows it; also while the service writes it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from nervus.errors import NervusError
from nervus.updates import schema
from nervus.updates.record import Stored

DATABASE: Final = "updates.db"


class UpdatesRecordError(NervusError):
    """What is stored of updates cannot be read."""


class NoUpdatesRecordError(UpdatesRecordError):
    """Nothing is stored of updates yet."""


def read_record(data: Path) -> Stored:
    """Read all roll-outs and what boards said of themselves.

    Args:
        data: Folder of the stores.

    Raises:
        NoUpdatesRecordError: There is nothing yet.
        UpdatesRecordError: It cannot be read.
    """
    path = data / DATABASE
    missing = NoUpdatesRecordError(
        "nothing is known of updates yet",
        where=str(path),
        hint="it appears once the service updates has run: nervus up",
    )
    if not path.is_file():
        raise missing
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            # The service makes the file first, then all that is in it at once.
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                raise missing
            return schema.read(connection)
    except sqlite3.Error as error:
        raise UpdatesRecordError(
            f"cannot be read ({error})",
            where=str(path),
            hint="restore it from a backup; moved away, roll-outs that are under way end",
        ) from error
