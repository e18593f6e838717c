"""Tables of the bus in a plane's store."""

from typing import Final

from nervus.bus import ledger, memory, reject_log

KEPT: Final = ledger.SCHEMA + reject_log.SCHEMA
"""Version 1 of the tables of a store that is given to a `Shell`."""

REMEMBERED: Final = memory.SCHEMA
"""Version 1 of the tables of a store that is given to a `Memory`."""
