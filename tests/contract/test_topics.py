"""Topics: built, parsed and bound to identities from one table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervus.wire import topics
from nervus.wire.acl import RoleError, lines
from nervus.wire.dotted import dotted, undotted
from nervus.wire.topic import LevelError, level, unlevel
from nervus.wire.topic_parser import is_legacy, parse
from nervus.wire.topics import ROLES, TOPICS
from spinal import levels as board_levels

LEVELS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10).filter(
    lambda text: len(text.encode()) * 3 <= 64
)


@given(LEVELS)
@pytest.mark.req("S2-24")
def test_a_level_survives_encoding_and_board_and_hub_encode_alike(text: str) -> None:
    encoded = level(text)
    assert set(encoded) <= set(board_levels.PLAIN + "%")
    assert unlevel(encoded) == text
    assert board_levels.level(text) == encoded
    assert board_levels.unlevel(encoded) == text


def test_a_colon_is_legal_in_a_scope_and_a_dot_is_encoded() -> None:
    assert level("user:abc") == "user:abc"
    assert level("b.1") == "b%2E1"


@pytest.mark.parametrize("text", ["", "x" * 65, "." * 22, "a\x00", "\x7f"])
def test_a_level_that_is_empty_too_long_or_not_text_is_an_error(text: str) -> None:
    with pytest.raises(LevelError, match="topic level"):
        level(text)
    with pytest.raises(ValueError, match="topic level"):
        board_levels.level(text)


@pytest.mark.parametrize("encoded", ["a%2e1", "a.1", "%ff", "a b", "%01"])
def test_a_level_that_is_not_canonical_is_an_error(encoded: str) -> None:
    with pytest.raises(LevelError):
        unlevel(encoded)


@given(st.data())
def test_every_built_topic_parses_back_to_its_row_and_levels(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(TOPICS))
    names = [part[1:-1] for part in spec.template.split("/") if part.startswith("{")]
    values = {name: data.draw(LEVELS, label=name) for name in names}
    built = getattr(topics, spec.name)(**values)
    assert parse(built.topic) == built
    assert not is_legacy(built.topic)


@given(st.data())
@pytest.mark.req("S4-71")
def test_every_built_topic_has_a_dotted_name_that_leads_back(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(TOPICS))
    values = {name: data.draw(LEVELS, label=name) for name in spec.variables}
    built = getattr(topics, spec.name)(**values)
    name = dotted(built)
    assert name.split(".")[: len(spec.dotted.split("."))] == spec.dotted.split(".")
    assert undotted(name) == built


@pytest.mark.req("S4-71")
def test_each_topic_is_a_domain_a_subdomain_and_a_verb_of_its_own() -> None:
    for spec in TOPICS:
        domain, subdomain, verb = spec.dotted.split(".")
        assert spec.template.lower().startswith(f"/{domain}/")
        assert subdomain
        assert verb
    assert len({spec.dotted for spec in TOPICS}) == len(TOPICS)
    outcome = topics.outcome("room", "living.room", "01M7X8PQG0FP793DTR98H6BCFN")
    assert dotted(outcome) == "e.outcome.report.room.living%2Eroom.01M7X8PQG0FP793DTR98H6BCFN"


@pytest.mark.parametrize(
    "name",
    [
        *("", "e", "e.outcome", "e.outcome.report", "e.outcome.report.room.kitchen"),
        *("e.outcome.report.room.kitchen.a.b", "e.outcome.report.room.kit chen.a"),
        *("e.outcome.report.room..a", "nvm.job.submit", "E.outcome.report.room.kitchen.a"),
    ],
)
def test_what_is_no_dotted_name_of_a_topic_leads_nowhere(name: str) -> None:
    assert undotted(name) is None


@pytest.mark.req("S0-18", "S0-19", "S0-20", "S0-22")
@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_every_topic_has_a_scope_and_says_event_or_state(spec: topics.TopicSpec) -> None:
    parts = spec.template.split("/")
    assert parts[3] == ("state" if spec.retained else "event")
    scope = parts[4:6]
    assert scope in (["{scope_level}", "{scope}"], ["device", "{device_id}"])


@pytest.mark.req(
    "S0-23", "S0-24", "S0-25", "S0-26", "S0-27", "S0-28", "S0-29", "S0-30", "S0-32", "S0-35",
    "S0-36", "S0-37", "S0-38", "S0-39", "S0-40", "S0-41", "S0-42", "S1-21", "S1-22", "S1-30",
    "S1-31", "S1-32", "S1-33", "S2-28", "S2-30", "S2-32", "S2-33", "S2-35", "S2-36",
)  # fmt: skip
def test_the_topics_of_the_design_are_there_as_written() -> None:
    scope = "{scope_level}/{scope}"
    device = "device/{device_id}"
    wanted = {
        *(f"/sc/dev/state/{device}/{name}" for name in ("status", "info")),
        *(f"/sc/dev/event/{device}/{name}" for name in ("health", "log", "crash", "ping", "pong")),
        *(f"/sc/dev/event/{device}/{name}" for name in ("config", "config-report", "update")),
        *(f"/sc/dev/event/{device}/{name}" for name in ("chunk-request", "chunk", "update-report")),
        f"/sc/media/event/{scope}/{device}/kind/{{kind}}",
        f"/sc/media/state/{device}",
        *(f"/bs/pattern/event/{scope}/{{pattern_type}}/{n}" for n in ("trigger", "request")),
        f"/bs/pattern/event/{scope}/{{pattern_type}}/report",
        *(f"/bs/global/state/{scope}/{name}" for name in ("alert", "arousal", "parameters")),
        f"/bs/global/event/{scope}/alert",
        f"/D/mode/state/{scope}",
        f"/th/mod/event/{scope}/target/{{target_kind}}/{{target_id}}",
        f"/C/request/event/{scope}/from/{{identity}}/action/{{action_id}}",
        f"/C/cancel/event/{scope}/from/{{identity}}/action/{{action_id}}",
        f"/C/approval/event/{scope}/action/{{action_id}}",
        f"/E/progress/event/{scope}/action/{{action_id}}",
        f"/sc/aff/event/{scope}/sensor/{{sensor_type}}/device/{{device_id}}",
        f"/sc/eff/event/{scope}/act/{{actuator_type}}/device/{{device_id}}/cmd/{{action_id}}",
        "/sc/reflex/event/device/{device_id}/rule/{reflex_id}/configure",
        "/sc/reflex/event/device/{device_id}/rule/{reflex_id}/trigger",
        "/sc/reflex/event/device/{device_id}/rule/{reflex_id}/fire/{action_id}",
        "/sc/reflex/event/device/{device_id}/rule/{reflex_id}/report/{action_id}",
        f"/bs/relay/event/{scope}/channel/{{channel}}",
        f"/C/cmd/event/{scope}/channel/{{channel}}/action/{{action_id}}",
        f"/E/outcome/event/{scope}/action/{{action_id}}",
        f"/E/error/event/{scope}/action/{{action_id}}",
        f"/X/reflect/event/{scope}/lane/reject",
        f"/th/gate/state/{scope}/target/{{target_kind}}/{{target_id}}",
        f"/th/relay/event/{scope}/channel/{{channel}}",
        f"/th/route/event/{scope}/channel/{{channel}}",
    }
    assert wanted <= {spec.template for spec in TOPICS}


GLOBAL = ("alert", "arousal", "parameters")


def test_a_boards_permissions_are_literal_in_its_own_id_and_its_grant() -> None:
    allowed = lines("b1", "board", "room/kitchen", "spinal")
    assert allowed[0] == "user b1"
    assert "topic write /sc/aff/event/room/kitchen/sensor/+/device/b1" in allowed
    assert "topic read /sc/eff/event/room/kitchen/act/+/device/b1/cmd/+" in allowed
    assert "topic write /X/reflect/event/device/b1/lane/reject" in allowed
    of_all = {f"topic read /bs/global/state/room/kitchen/{name}" for name in GLOBAL}
    assert of_all <= set(allowed)
    assert all("/b1" in line for line in set(allowed[1:]) - of_all)
    assert lines("b1", "board", "room/kitchen", "core") == ["user b1"]


@pytest.mark.req("S0-13", "S1-8", "S1-10", "S1-20", "S2-7", "S2-10", "S2-18", "S2-73", "S2-74")
def test_only_the_owning_roles_may_write_afferents_efferents_and_gates() -> None:
    def roles(verb: str, prefix: str) -> set[str]:
        return {
            role
            for role in ROLES
            for broker in ("spinal", "core")
            for line in lines("x", role, "room/kitchen", broker)
            if line.startswith(f"topic {verb} {prefix}")
        }

    assert roles("write", "/sc/aff/") == {"board"}
    assert roles("read", "/sc/aff/") == {"brainstem"}
    assert {"reliable", "board"} == roles("write", "/sc/eff/")
    assert roles("write", "/bs/pattern/event/+/+/+/trigger") == {"trigger-source"}
    assert roles("write", "/D/mode/") == {"hypothalamus"}
    assert roles("write", "/th/mod/") == {"modulator"}
    assert roles("write", "/bs/relay/") == {"brainstem"}
    assert roles("read", "/C/approval/") == {"approver"}
    assert roles("write", "/th/gate/state/") == {"gatekeeper"}
    assert roles("write", "/C/cmd/") == {"policy"}
    assert "consumer" not in roles("read", "/bs/relay/")


@pytest.mark.parametrize("name", GLOBAL)
def test_brainstem_alone_brings_what_is_global_to_the_boards(name: str) -> None:
    def writers(broker: str) -> set[str]:
        line = f"topic write /bs/global/state/+/+/{name}"
        return {role for role in ROLES if line in lines("x", role, "room/kitchen", broker)}

    assert writers("spinal") == {"brainstem"}
    assert writers("core") == ({"controller"} if name == "parameters" else {"brainstem"})


def test_a_consumer_requests_under_its_own_name_only() -> None:
    allowed = lines("app", "consumer", None, "core")
    assert "topic write /C/request/event/+/+/from/app/action/+" in allowed
    assert "topic write /C/cancel/event/+/+/from/app/action/+" in allowed


def test_an_unknown_role_and_a_board_without_a_scope_are_errors() -> None:
    with pytest.raises(RoleError, match="the roles are"):
        lines("x", "king", None, "core")
    with pytest.raises(RoleError, match="grant it one scope"):
        lines("b1", "board", None, "spinal")
