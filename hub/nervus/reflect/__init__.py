"""The reflect plane: keeps what was rejected, and counts it by reason and source."""

from nervus.reflect.core import EraseRetained, Keep, Reflect
from nervus.reflect.machine import build
from nervus.reflect.quarantine import Quarantine
from nervus.reflect.reject import Reject
from nervus.reflect.settings import ReflectSettings

__all__ = [
    "EraseRetained",
    "Keep",
    "Quarantine",
    "Reflect",
    "ReflectSettings",
    "Reject",
    "build",
]
