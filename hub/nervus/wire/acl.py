"""Broker permissions of one identity, from topics.json."""

from nervus.wire.topic import TopicSpec
from nervus.wire.topics import ROLES, TOPICS


class RoleError(ValueError):
    """There is no such role, or a board was given no scope."""


def lines(name: str, role: str, scope: str | None, broker: str) -> list[str]:
    """The lines of a mosquitto ACL file for one identity on one broker, everything else denied.

    `scope` is a board's grant, `scope_level/scope` such as room/living_room; others have None and
    are bound by role alone. A board is bound to its own device id and its grant, a part to its own
    identity. All levels are literal or `+`: no pattern substitution is left to the broker.
    """
    if role not in ROLES:
        raise RoleError(f"role {role!r}: the roles are {', '.join(ROLES)}")
    if role == "board" and (scope is None or scope.count("/") != 1):
        raise RoleError(f"board {name!r}: grant it one scope, such as room/living_room")
    entries = [f"user {name}"]
    for spec in TOPICS:
        if broker not in spec.brokers or (role == "board" and broker != "spinal"):
            continue
        bound = _bindings(spec, name, role, scope)
        if role in spec.publishers(broker):
            entries.append(f"topic write {spec.filter(identity=name, **bound)}")
        if role in spec.subscribe:
            entries.append(f"topic read {spec.filter(**bound)}")
    return entries


def _bindings(spec: TopicSpec, name: str, role: str, scope: str | None) -> dict[str, str]:
    if role != "board" or scope is None:
        return {}
    scope_level, scope_name = ("device", name) if spec.board_scope_is_device else scope.split("/")
    return {"device_id": name, "scope_level": scope_level, "scope": scope_name}
