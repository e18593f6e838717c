"""What the updates core is told beside the guard's verdicts."""

from dataclasses import dataclass

from nervus.updates.orders import Order
from nervus.updates.pack import Pack
from nervus.wire import Accepted, Connected, Removed


@dataclass(frozen=True, slots=True)
class Ordered:
    """Event: a pack is to be brought to boards."""

    order: Order
    pack: Pack


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Event: an order is taken back, by whom if that is known; what is on trial ends its trial."""

    update_id: str
    by: str = ""


Event = Accepted | Removed | Connected | Ordered | Withdrawn
