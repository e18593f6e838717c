"""Shards: every scope has one owner, and the broker sends each no more than it has to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from nervus.bus import Shard, subscriptions
from nervus.wire import topics

NAMES = st.text(
    st.characters(codec="ascii", categories=["L", "N"], include_characters=" .:/"),
    min_size=1,
    max_size=12,
)
SCOPES = st.tuples(st.sampled_from(["device", "room", "house", "user_session"]), NAMES)
SHARED = (topics.RELAY_BUNDLE, topics.DEVICE_STATUS)


def takes(shard: Shard, topic: str, granted: str | None = None) -> bool:
    """Whether a shard is sent a topic and wants it."""
    wants = shard.wants(SHARED, lambda _: granted)
    filters = [*shard.filters(SHARED), *subscriptions([topics.GATE_STATE])]
    sent = any(topic_matches_sub(each.topic, topic) for each in filters)
    return sent and (wants is None or wants(topic))


@pytest.mark.req("S2-81")
@settings(max_examples=30)
@given(st.lists(SCOPES, max_size=8, unique=True), st.integers(1, 4), SCOPES)
def test_whatever_the_map_every_scope_has_one_owner(
    named: list[tuple[str, str]], count: int, asked: tuple[str, str]
) -> None:
    scopes = tuple(frozenset("/".join(one) for one in named[n::count]) for n in range(count))
    shards = [Shard(number, scopes) for number in range(count + 1)]
    for scope in (*named, asked):
        driver = topics.relay_bundle(*scope, "somatic").topic
        assert [takes(each, driver) for each in shards].count(True) == 1
        owner = next(each for each in shards if takes(each, driver))
        assert owner.owns("/".join(scope))
        status = topics.device_status("b1").topic
        assert [each for each in shards if takes(each, status, "/".join(scope))] == [owner]
        gate = topics.gate_state(*scope, "channel", "somatic").topic
        assert all(takes(each, gate) for each in shards)


def test_only_the_first_shard_is_sent_what_is_not_its_own() -> None:
    scopes = (frozenset({"room/a", "room/b"}), frozenset({"room/c"}))
    assert [f.topic for f in Shard(1, scopes).filters([topics.RELAY_BUNDLE])] == [
        "/bs/relay/event/room/a/channel/+",
        "/bs/relay/event/room/b/channel/+",
    ]
    (every,) = Shard(0, scopes).filters([topics.RELAY_BUNDLE])
    assert every.topic == "/bs/relay/event/+/+/channel/+"


def test_what_is_no_topic_is_refused_by_one_shard_alone() -> None:
    scopes = (frozenset({"room/a"}),)
    wants = [Shard(number, scopes).wants(SHARED) for number in (0, 1)]
    assert [each is not None and each("/bs/nonsense") for each in wants] == [True, False]


def test_a_device_without_a_grant_is_its_own_scope() -> None:
    shard = Shard(1, (frozenset({"device/b1"}),))
    assert takes(shard, topics.device_status("b1").topic)
    assert not takes(shard, topics.device_status("b2").topic)


def test_without_a_map_nothing_is_filtered() -> None:
    assert Shard().wants(SHARED) is None
    assert Shard().owns("room/anything")
