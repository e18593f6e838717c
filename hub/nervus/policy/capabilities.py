"""The capabilities of the registry, and the order each makes of its arguments."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydantic import ValidationError

from nervus.wire import registries
from nervus.wire.contracts import CommandRequestPayload, EfferentCommandPayload


@dataclass(frozen=True, slots=True)
class Capability:
    """An invocable operation on an actuator: which argument it takes, and what that sets."""

    id: str
    version: str
    argument: str
    order: Literal["set", "pulse_ms"]
    channel: str


@cache
def capabilities() -> dict[str, Capability]:
    """What registries/capabilities lists, by id."""
    return {
        name: Capability(
            id=name,
            version=entry["version"],
            argument=entry["order"]["argument"],
            order=entry["order"]["field"],
            channel=entry["channel"],
        )
        for name, entry in registries.entries("capabilities").items()
    }


class ArgumentError(ValueError):
    """The arguments are not those of the capability; the message says which and why."""


def order(capability: Capability, request: CommandRequestPayload) -> EfferentCommandPayload:
    """Translate a request into the order for its device; raises ArgumentError."""
    if request.arguments.keys() != {capability.argument}:
        given = ", ".join(sorted(request.arguments)) or "none"
        raise ArgumentError(f"{capability.id} takes {capability.argument}; given: {given}")
    value = request.arguments[capability.argument]
    try:
        return EfferentCommandPayload.model_validate(
            {"actuator": request.target.actuator, capability.order: value}
        )
    except ValidationError as error:
        rule = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ArgumentError(f"{capability.argument}: {rule['msg']}") from error
