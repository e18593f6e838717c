"""The reflect plane: keeps what was rejected, and counts it by reason and source."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.reflect.core import EraseRetained, Keep, Reflect
    from nervus.reflect.machine import build
    from nervus.reflect.quarantine import NoQuarantineError, Quarantine
    from nervus.reflect.reject import Reject
    from nervus.reflect.settings import ReflectSettings
else:
    __getattr__ = late(
        __name__,
        {
            "core": ("EraseRetained", "Keep", "Reflect"),
            "machine": ("build",),
            "quarantine": ("NoQuarantineError", "Quarantine"),
            "reject": ("Reject",),
            "settings": ("ReflectSettings",),
        },
    )

__all__ = [
    "EraseRetained",
    "Keep",
    "NoQuarantineError",
    "Quarantine",
    "Reflect",
    "ReflectSettings",
    "Reject",
    "build",
]
