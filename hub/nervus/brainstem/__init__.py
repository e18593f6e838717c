"""Brainstem: afferents in, windowed and typed summaries out; never raw, never an actuator."""

from nervus.brainstem.core import Brainstem, BrainstemCounters
from nervus.brainstem.machine import build
from nervus.brainstem.settings import BrainstemSettings

__all__ = ["Brainstem", "BrainstemCounters", "BrainstemSettings", "build"]
