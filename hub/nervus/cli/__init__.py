"""The `nervus` command."""

from nervus.cli.app import main

__all__ = ["main"]
