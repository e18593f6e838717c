"""The bus: MQTT sessions that acknowledge late, and the one loop that drives a plane's core."""

from nervus.bus.address import BrokerAddress, Filter, Limits, subscriptions
from nervus.bus.context import Context, Plane, plane_settings
from nervus.bus.errors import (
    ClientShapeError,
    MessageExpiredError,
    MessageShedError,
    OfferTimeoutError,
    PublishDeniedError,
    PublishError,
    PublishTimeoutError,
    SubscriptionRefusedError,
)
from nervus.bus.failure import first_failure
from nervus.bus.journal import Journal
from nervus.bus.outbox import Outgoing
from nervus.bus.session import Delivery, Session, SessionCounters
from nervus.bus.shell import Core, Shell, ShellCounters

__all__ = [
    "BrokerAddress",
    "ClientShapeError",
    "Context",
    "Core",
    "Delivery",
    "Filter",
    "Journal",
    "Limits",
    "MessageExpiredError",
    "MessageShedError",
    "OfferTimeoutError",
    "Outgoing",
    "Plane",
    "PublishDeniedError",
    "PublishError",
    "PublishTimeoutError",
    "Session",
    "SessionCounters",
    "Shell",
    "ShellCounters",
    "SubscriptionRefusedError",
    "first_failure",
    "plane_settings",
    "subscriptions",
]
