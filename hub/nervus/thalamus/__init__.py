"""Thalamus: relays what passes the gate, decides the gates, and says what became of the rest."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.thalamus.gate import Gate, Thresholds, Verdict, judge
    from nervus.thalamus.gatekeeper import Gatekeeper, GatekeeperCounters
    from nervus.thalamus.lease import Claim, Lease, Leases
    from nervus.thalamus.machine import build, build_gatekeeper, build_raw
    from nervus.thalamus.raw import RawCounters, RawRelay, RawSettings
    from nervus.thalamus.relay import Relay, RelayCounters
    from nervus.thalamus.settings import GatesSettings, ThalamusSettings
    from nervus.thalamus.summary import Summary
else:
    __getattr__ = late(
        __name__,
        {
            "gate": ("Gate", "Thresholds", "Verdict", "judge"),
            "gatekeeper": ("Gatekeeper", "GatekeeperCounters"),
            "lease": ("Claim", "Lease", "Leases"),
            "machine": ("build", "build_gatekeeper", "build_raw"),
            "raw": ("RawCounters", "RawRelay", "RawSettings"),
            "relay": ("Relay", "RelayCounters"),
            "settings": ("GatesSettings", "ThalamusSettings"),
            "summary": ("Summary",),
        },
    )

__all__ = [
    "Claim",
    "Gate",
    "Gatekeeper",
    "GatekeeperCounters",
    "GatesSettings",
    "Lease",
    "Leases",
    "RawCounters",
    "RawRelay",
    "RawSettings",
    "Relay",
    "RelayCounters",
    "Summary",
    "ThalamusSettings",
    "Thresholds",
    "Verdict",
    "build",
    "build_gatekeeper",
    "build_raw",
    "judge",
]
