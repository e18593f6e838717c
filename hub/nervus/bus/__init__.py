"""The bus: MQTT sessions that acknowledge late, and the one loop that drives a plane's core."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.bus.address import DURABLE, BrokerAddress, Filter, Limits, subscriptions
    from nervus.bus.batch import ShellCounters
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
        UnheardError,
    )
    from nervus.bus.failure import first_failure
    from nervus.bus.journal import (
        Journal,
        JournalCounters,
        Recorder,
        code_fingerprint,
        origin,
        output_line,
        recording,
    )
    from nervus.bus.journal_file import JournalError, JournalRun, Start
    from nervus.bus.journal_settings import JournalSettings
    from nervus.bus.ledger import Ownership, Retained, recorded
    from nervus.bus.machine import Core, Granted, Machine, Origin
    from nervus.bus.memory import Memory
    from nervus.bus.outbox import Outgoing
    from nervus.bus.replay import Replay, Replayed, publishes
    from nervus.bus.session import Delivery, Session
    from nervus.bus.shard import Shard, numbered
    from nervus.bus.shell import Shell
    from nervus.bus.tables import KEPT, REMEMBERED
else:
    __getattr__ = late(
        __name__,
        {
            "address": ("DURABLE", "BrokerAddress", "Filter", "Limits", "subscriptions"),
            "batch": ("ShellCounters",),
            "context": ("Context", "Plane", "plane_settings"),
            "errors": (
                "ClientShapeError",
                "MessageExpiredError",
                "MessageShedError",
                "OfferTimeoutError",
                "PublishDeniedError",
                "PublishError",
                "PublishTimeoutError",
                "SubscriptionRefusedError",
                "UnheardError",
            ),
            "failure": ("first_failure",),
            "journal": (
                "Journal",
                "JournalCounters",
                "Recorder",
                "code_fingerprint",
                "origin",
                "output_line",
                "recording",
            ),
            "journal_file": ("JournalError", "JournalRun", "Start"),
            "journal_settings": ("JournalSettings",),
            "ledger": ("Ownership", "Retained", "recorded"),
            "machine": ("Core", "Granted", "Machine", "Origin"),
            "memory": ("Memory",),
            "outbox": ("Outgoing",),
            "replay": ("Replay", "Replayed", "publishes"),
            "session": ("Delivery", "Session"),
            "shard": ("Shard", "numbered"),
            "shell": ("Shell",),
            "tables": ("KEPT", "REMEMBERED"),
        },
    )

__all__ = [
    "DURABLE",
    "KEPT",
    "REMEMBERED",
    "BrokerAddress",
    "ClientShapeError",
    "Context",
    "Core",
    "Delivery",
    "Filter",
    "Granted",
    "Journal",
    "JournalCounters",
    "JournalError",
    "JournalRun",
    "JournalSettings",
    "Limits",
    "Machine",
    "Memory",
    "MessageExpiredError",
    "MessageShedError",
    "OfferTimeoutError",
    "Origin",
    "Outgoing",
    "Ownership",
    "Plane",
    "PublishDeniedError",
    "PublishError",
    "PublishTimeoutError",
    "Recorder",
    "Replay",
    "Replayed",
    "Retained",
    "Session",
    "Shard",
    "Shell",
    "ShellCounters",
    "Start",
    "SubscriptionRefusedError",
    "UnheardError",
    "code_fingerprint",
    "first_failure",
    "numbered",
    "origin",
    "output_line",
    "plane_settings",
    "publishes",
    "recorded",
    "recording",
    "subscriptions",
]
