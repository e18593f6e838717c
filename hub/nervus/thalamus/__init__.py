"""Thalamus: relays what passes the gate, and says what became of the rest."""

from nervus.thalamus.gate import Gate, Thresholds, Verdict, judge
from nervus.thalamus.machine import build
from nervus.thalamus.relay import Relay, RelayCounters
from nervus.thalamus.settings import ThalamusSettings
from nervus.thalamus.summary import Summary

__all__ = [
    "Gate",
    "Relay",
    "RelayCounters",
    "Summary",
    "ThalamusSettings",
    "Thresholds",
    "Verdict",
    "build",
    "judge",
]
