"""Thalamus: relays what passes the gate, decides the gates, and says what became of the rest."""

from nervus.thalamus.gate import Gate, Thresholds, Verdict, judge
from nervus.thalamus.gatekeeper import Gatekeeper, GatekeeperCounters
from nervus.thalamus.lease import Claim, Lease, Leases
from nervus.thalamus.machine import build, build_gatekeeper, build_raw
from nervus.thalamus.raw import RawCounters, RawRelay, RawSettings
from nervus.thalamus.relay import Relay, RelayCounters
from nervus.thalamus.settings import GatesSettings, ThalamusSettings
from nervus.thalamus.summary import Summary

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
