"""Finds schemas, boards, drivers and firmware, in a checkout and in an installed wheel alike."""

from pathlib import Path
from typing import Final

from nervus.errors import NervusError

NAMES: Final = ("schemas", "firmware", "boards", "drivers")

_PACKAGE: Final = Path(__file__).resolve().parent
_CHECKOUT: Final = _PACKAGE.parent.parent
_INSTALLED: Final = _PACKAGE / "_resources"


class ResourceNotFoundError(NervusError):
    """A resource folder is unknown, or this installation lacks it."""


def find(name: str) -> Path:
    """Return the folder of a resource.

    Args:
        name: One of `NAMES`.

    Raises:
        ResourceNotFoundError: `name` is not a resource, or the installation is incomplete.
    """
    if name not in NAMES:
        raise ResourceNotFoundError(
            f"there is no resource {name!r}", hint=f"the resources are {', '.join(NAMES)}"
        )
    roots = [_INSTALLED]
    if (_CHECKOUT / "pyproject.toml").is_file():
        roots.insert(0, _CHECKOUT)
    for root in roots:
        if (root / name).is_dir():
            return root / name
    raise ResourceNotFoundError(
        f"the resource folder {name!r} is missing",
        where=" or ".join(str(root / name) for root in roots),
        hint="install the package again, or restore the checkout",
    )
