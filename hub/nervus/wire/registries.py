"""Registries: closed lists of names, kept as data under schemas/registries."""

import json
from functools import cache
from typing import Any

from nervus import resources


@cache
def names(registry: str) -> frozenset[str]:
    """What a registry lists: of channels, patterns, states, modes, nuclei or sensor_types."""
    return frozenset(entries(registry))


def channels() -> frozenset[str]:
    """The relay channels."""
    return names("channels")


@cache
def sensor_channels() -> dict[str, str]:
    """The relay channel of each sensor type."""
    return {name: entry["channel"] for name, entry in entries("sensor_types").items()}


@cache
def nuclei() -> dict[str, str]:
    """The nucleus of each relay channel that is gated with others."""
    listed = entries("nuclei").items()
    return {channel: name for name, entry in listed for channel in entry["channels"]}


@cache
def mode_modulators() -> dict[str, list[dict[str, Any]]]:
    """What each mode asks of the gatekeeper, as registry.schema.json has it; most ask nothing."""
    return {name: entry.get("modulators", []) for name, entry in entries("modes").items()}


def patterns() -> dict[str, dict[str, Any]]:
    """What each pattern asks for, and when; as registry.schema.json has it."""
    return entries("patterns")


def modes() -> dict[str, dict[str, Any]]:
    """What each mode means to brainstem; as registry.schema.json has it."""
    return entries("modes")


@cache
def entries(name: str) -> dict[str, dict[str, Any]]:
    """What a registry says of each name; not to be changed."""
    text = (resources.find("schemas") / "registries" / f"{name}.json").read_text()
    listed: dict[str, dict[str, Any]] = json.loads(text)["entries"]
    return listed
