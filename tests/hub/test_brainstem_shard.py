"""A shard of brainstem: it knows what holds for all, and speaks for its own scopes alone."""

from typing import Any

import pytest

from hub.brainstem_inputs import (
    HOUSE,
    KITCHEN,
    brainstem,
    mode_update,
    of,
    parameter,
    told,
    trigger,
)
from hub.plane_inputs import NOW_MS, afferent, judged
from nervus.brainstem import BrainstemSettings, build
from nervus.bus import Origin
from nervus.wire import Publish, Rejected, topics
from nervus.wire.contracts import ParameterUpdate

SCOPES = (frozenset({"room/kitchen"}),)


def shard(number: int) -> Any:
    origin = Origin(seed=1, boot=1, house="home", number=number, scopes=SCOPES)
    return build(BrainstemSettings(), origin, lambda _: None).core


def spoken_for(effects: Any) -> set[str]:
    return {e.address.levels["scope"] for e in effects if isinstance(e, Publish)}


@pytest.mark.req("S1-13", "S1-23")
def test_the_mode_of_the_house_holds_in_every_shard_and_one_of_them_tells_the_house() -> None:
    first, second = shard(0), shard(1)
    for core in (first, second):
        core.step(afferent(20, scope="hall" if core is first else "kitchen"), NOW_MS)
    night = mode_update("night", scope=HOUSE)
    assert spoken_for(first.step(night, NOW_MS)) == {"home", "hall"}
    effects = second.step(night, NOW_MS)
    assert spoken_for(effects) == {"kitchen"}
    (alert,) = told(effects)
    assert alert.state == "quiet_hours"
    # A room's mode is its owner's.
    assert spoken_for(first.step(mode_update("away", scope=KITCHEN), NOW_MS)) == set()


@pytest.mark.req("S4-51")
def test_parameters_hold_in_every_shard_and_one_of_them_tells_the_boards() -> None:
    first, second = shard(0), shard(1)
    update = parameter(250, scope=HOUSE)
    assert len(of(ParameterUpdate, first.step(update, NOW_MS), "spinal")) == 1
    assert of(ParameterUpdate, second.step(update, NOW_MS), "spinal") == []
    second.step(afferent(20), NOW_MS)
    assert second._scopes[KITCHEN].tuned(second._tuning).settings.window_ms == 250
    wrong = parameter(-1, scope=HOUSE)
    assert [e for e in first.step(wrong, NOW_MS) if isinstance(e, Rejected)] != []
    assert list(second.step(wrong, NOW_MS)) == []


def test_what_another_shard_told_of_a_scope_before_the_map_changed_is_taken_up() -> None:
    alert, *_ = [
        e
        for e in brainstem().step(trigger(), NOW_MS)
        if isinstance(e, Publish) and e.address.spec is topics.GLOBAL_ALERT
    ]
    second = shard(1)
    second.step(judged(alert, NOW_MS), NOW_MS)
    assert second._scopes[KITCHEN].alert.at(NOW_MS) == 0.9
    meta = alert.message.meta.model_copy(update={"source": "somebody-1"})
    other = shard(1)
    forged = Publish(alert.address, alert.message.model_copy(update={"meta": meta}))
    other.step(judged(forged, NOW_MS), NOW_MS)
    assert other._scopes[KITCHEN].alert.at(NOW_MS) == 0
