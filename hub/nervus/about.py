"""The product's name, tagline and version: the one place the code takes them from."""

from importlib.metadata import metadata
from typing import Final

NAME: Final = "Nervus"
_PACKAGE: Final = metadata(NAME.lower())
TAGLINE: Final = _PACKAGE["Summary"]
VERSION: Final = _PACKAGE["Version"]
