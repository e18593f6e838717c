"""The capabilities there are, as data, and the order each makes of its arguments."""

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ValidationError

from nervus.wire.contracts import CommandRequestPayload, EfferentCommandPayload


@dataclass(frozen=True, slots=True)
class Capability:
    """An invocable operation on an actuator: which argument it takes, and what that sets."""

    id: str
    version: str
    argument: str
    order: Literal["set", "pulse_ms"]
    channel: str


CAPABILITIES: Final = {
    capability.id: capability
    for capability in (
        Capability("actuator.set", "1", argument="value", order="set", channel="motor"),
        Capability("actuator.pulse", "1", argument="pulse_ms", order="pulse_ms", channel="motor"),
    )
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
