"""Public names of a package that are imported when somebody asks for them.

A command of a few lines waits for what it uses, not for all that its packages could do.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def late(package: str, names: Mapping[str, Collection[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: Its `__name__`.
        names: Its public names by the module below it that has them.
    """
    homes = {name: f"{package}.{module}" for module, those in names.items() for name in those}

    def found(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return found
