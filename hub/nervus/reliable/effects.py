"""What the reliable core asks its shell to make durable, before anything is published."""

from dataclasses import dataclass

from nervus.reliable.action import Action


@dataclass(frozen=True, slots=True)
class InsertAction:
    """Store a new action; its action_id must not be there."""

    action: Action


@dataclass(frozen=True, slots=True)
class UpdateAction:
    """Store how far an action has come; it must be there."""

    action: Action


@dataclass(frozen=True, slots=True)
class ForgetAction:
    """Delete a finished action that nobody repeats any more."""

    action_id: str


Durable = InsertAction | UpdateAction | ForgetAction
