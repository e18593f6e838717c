"""What policy and reliable are told at a start: plain values, and the same as before."""

import json

from pydantic import TypeAdapter

from hub.command_inputs import NOW_MS, Ask, World, action_id
from nervus.policy.core import Unannounced
from nervus.reliable import Reliable, ReliableSettings, Restored, schema
from nervus.wire import Mint, Publish, topics


def world() -> World:
    """Two actions of which one has ended."""
    made = World()
    made.ask(Ask(action_id(NOW_MS)))
    made.ask(Ask(action_id(NOW_MS), actuator="door"))
    return made


def through_a_journal(event: object) -> object:
    adapter = TypeAdapter(type(event))
    return adapter.validate_python(json.loads(json.dumps(adapter.dump_python(event, mode="json"))))


def test_stored_actions_are_taken_up_alike_from_a_store_and_from_a_journal() -> None:
    actions = schema.read(world().database)
    assert {each.open for each in actions} == {True, False}
    event = Restored.of(actions)
    assert through_a_journal(event) == event

    def fresh() -> Reliable:
        return Reliable(ReliableSettings(), Mint("reliable", "reliable", seed=9, boot=9))

    assert fresh().step(event, NOW_MS + 50) == fresh().restore(actions, NOW_MS + 50) != []


def test_a_command_that_observers_may_have_missed_is_said_again_in_the_same_words() -> None:
    made = world()
    (said,) = [each for _, each in made.published if each.address.spec is topics.COMMAND]
    event = Unannounced.of([said])
    assert through_a_journal(event) == event
    (again,) = made.policy.step(event, NOW_MS + 1_000)
    assert isinstance(again, Publish)
    assert (again.address, again.message) == (said.address, said.message)
    assert again.expiry_ms is not None
    assert said.expiry_ms == again.expiry_ms + 1_000
