"""Policy: nothing without a rule, limits hold, whatever breaks denies, and the audit tells."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.command_inputs import NOW_MS, POLICY, Ask, Board, World, action_id
from nervus.policy import (
    TEMPLATE,
    AuditChainError,
    Policy,
    PolicyFileError,
    PolicySettings,
    RegimeChanged,
    load,
    parse,
    verify_file,
)
from nervus.policy.audit import append, verify_chain
from nervus.policy.engine import Ruling
from nervus.policy.rules import Limit, Regime
from nervus.policy.service import STORE_SCHEMA
from nervus.reliable import Reliable, ReliableSettings
from nervus.wire import Connected, Mint
from nervus.wire.contracts import CommandRequestPayload, Target

RULE = """
[[rule]]
id = "{id}"
effect = "{effect}"
principals = ["{principal}"]
capabilities = ["{capability}"]
targets = ["{target}"]
"""


def rule(**fields: str) -> str:
    """One rule of a policy file, allowing everything unless told otherwise."""
    everything = {"principal": "*", "capability": "*", "target": "*/*", "effect": "allow"}
    return RULE.format(**(everything | {"id": "r"} | fields))


def policy(text: str | None = POLICY, **options: Any) -> Policy:
    """A policy core that has read a file, or none."""
    mint = Mint("policy", "policy", seed=1, boot=1)
    reliable = Reliable(ReliableSettings(), Mint("reliable", "reliable", seed=2, boot=1))
    settings = PolicySettings(budget=options.pop("budget", 20_000))
    core = Policy(settings, mint, reliable, **options)
    core.step(RegimeChanged(None if text is None else parse(text.encode(), "policy.toml")), NOW_MS)
    return core


def request(
    capability: str = "actuator.set", target: str = "b1/lamp", **arguments: Any
) -> CommandRequestPayload:
    device, actuator = target.split("/")
    return CommandRequestPayload(
        capability=capability,
        target=Target(device_id=device, actuator=actuator),
        arguments=arguments or {"value": 1},
    )


def reason(text: str | None, asked: CommandRequestPayload, principal: str = "operator") -> str:
    """The reason code of a decision."""
    decision = policy(text).invoke(asked, principal, NOW_MS)
    assert decision.allowed is (decision.error is None)
    return decision.reason_code


@pytest.mark.req("S4-46")
@pytest.mark.parametrize("text", [None, "", TEMPLATE, rule(principal="somebody")])
def test_nothing_is_allowed_that_no_rule_allows(text: str | None) -> None:
    expected = "policy_unavailable" if text is None else "no_rule"
    assert reason(text, request()) == expected


@pytest.mark.req("S4-16")
@pytest.mark.parametrize(
    ("energy", "code"),
    [(50, "allowed"), (50.0, "allowed"), (50.1, "limit_exceeded"), (-1, "limit_exceeded")],
)
def test_an_argument_beyond_its_numeric_limit_is_blocked(energy: float, code: str) -> None:
    decision = policy().invoke(request(value=energy), "operator", NOW_MS)
    assert decision.reason_code == code
    if decision.error is not None:
        assert decision.error.message.startswith("rule operators: value is beyond the limit")


@pytest.mark.parametrize(
    ("selection", "allowed"),
    [
        ({"principal": "operator"}, True),
        ({"principal": "oper*"}, True),
        ({"principal": "operator-2"}, False),
        ({"capability": "actuator.set"}, True),
        ({"capability": "actuator.pulse"}, False),
        ({"target": "b1/lamp"}, True),
        ({"target": "b*/*"}, True),
        ({"target": "b2/lamp"}, False),
        ({"target": "b1/fan"}, False),
    ],
)
def test_a_rule_selects_by_principal_capability_and_target(
    selection: dict[str, str],
    allowed: bool,  # noqa: FBT001 - a table of cases
) -> None:
    assert (reason(rule(**selection), request()) == "allowed") is allowed


@pytest.mark.parametrize("order", [0, 1])
def test_a_deny_wins_wherever_it_stands(order: int) -> None:
    rules = [rule(id="yes"), rule(id="no", effect="deny", target="b1/*")]
    text = "".join(rules if order else reversed(rules))
    assert reason(text, request()) == "denied"
    assert reason(text, request(target="b2/lamp")) == "allowed"


def test_a_deny_with_limits_denies_only_what_lies_beyond_them() -> None:
    cap = rule(id="cap", effect="deny", capability="actuator.set") + "limits.value.max = 50\n"
    text = rule(id="yes") + cap
    assert reason(text, request(value=50)) == "allowed"
    assert reason(text, request(value=51)) == "limit_exceeded"
    assert reason(text, request("actuator.pulse", pulse_ms=100)) == "allowed"


def test_the_first_rule_that_allows_is_named_and_the_first_limit_is_told() -> None:
    text = (
        rule(id="small") + "limits.value.max = 1\n"
        + rule(id="large") + "limits.value.max = 9\n"
        + rule(id="also-large") + "limits.value.max = 9\n"
    )  # fmt: skip
    assert policy(text).invoke(request(value=5), "x", NOW_MS).rule_id == "large"
    denied = policy(text).invoke(request(value=10), "x", NOW_MS)
    assert (denied.rule_id, denied.reason_code) == ("small", "limit_exceeded")


@given(st.one_of(st.booleans(), st.text(max_size=64), st.none()))
def test_a_bound_holds_for_numbers_only(value: Any) -> None:
    assert not Limit(max=1).holds(value)
    assert not Limit(min=0).holds(value)


def test_choices_hold_for_values_of_the_same_kind() -> None:
    choices = Limit.model_validate({"one_of": ["eco", 1, False]})
    assert [choices.holds(each) for each in ("eco", 1, 1.0, False)] == [True] * 4
    assert [choices.holds(each) for each in ("x", True, 0, None)] == [False] * 4
    assert not Limit.model_validate({"one_of": [1, 9], "max": 5}).holds(9)


@pytest.mark.req("S4-47")
def test_a_decision_that_takes_too_long_denies() -> None:
    text = "".join(rule(id=f"r{n}") for n in range(30))
    core = policy(text, budget=100)
    decision = core.invoke(request(), "operator", NOW_MS)
    assert (decision.allowed, decision.reason_code) == (False, "policy_timeout")


@pytest.mark.req("S4-46")
def test_an_engine_that_breaks_denies() -> None:
    def broken(*_: Any) -> Ruling:
        raise ZeroDivisionError

    decision = policy(engine=broken).invoke(request(), "operator", NOW_MS)
    assert (decision.allowed, decision.reason_code) == (False, "engine_error")
    assert decision.error is not None
    assert (decision.error.category, decision.error.kind) == ("policy", "terminal")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(brightness=1), "actuator.set takes value; given: brightness"),
        (request(value=1, ramp=2), "actuator.set takes value; given: ramp, value"),
        (request("actuator.pulse", pulse_ms="long"), "pulse_ms: "),
        (request("actuator.pulse", pulse_ms=86_400_001), "pulse_ms: "),
    ],
)
def test_arguments_that_are_not_the_capabilitys_are_refused(asked: Any, message: str) -> None:
    decision = policy(rule()).invoke(asked, "operator", NOW_MS)
    assert decision.reason_code == "arguments_invalid"
    assert decision.error is not None
    assert decision.error.message.startswith(message)
    assert decision.error.category == "validation"


@pytest.mark.req("S3-57")
def test_a_denied_request_ends_rejected_and_terminal_and_never_reaches_a_board() -> None:
    world = World()
    world.step(Board("b1").status("online", NOW_MS))
    action = action_id()
    world.ask(Ask(action, actuator="door"))
    world.tick(30_000)
    outcome = world.outcome(action)
    assert outcome.payload.status == "rejected"
    (error,) = outcome.errors
    assert (error.code, error.category, error.kind) == ("denied", "policy", "terminal")
    assert "the door is for hands" in error.message
    assert not world.sent("efferent_command")
    assert not world.sent("command")


@pytest.mark.req("S3-40")
def test_a_principal_that_a_message_claims_is_not_believed() -> None:
    world = World()
    action = action_id()
    world.ask(Ask(action, identity="guest", claimed="operator"))
    assert world.outcome(action).errors[0].code == "no_rule"
    assert world.outcome(action).meta.principal == "guest"
    assert world.audit()[-1]["actor"] == "guest"


@pytest.mark.req(
    "S3-63", "S3-64", "S3-65", "S3-67", "S3-69", "S3-70", "S3-71", "S3-72", "S3-73", "S3-74",
    "S3-75", "S3-76", "S3-77",
)  # fmt: skip
def test_every_invocation_is_audited_allowed_or_denied() -> None:
    world = World()
    allowed, denied = action_id(), action_id()
    world.ask(Ask(allowed))
    world.ask(Ask(denied, actuator="door"))
    first, second = world.audit()[1:]
    (command,) = world.sent("command", allowed)
    assert first["envelope_id"] == command.message.meta.parent_id
    assert first["trace_id"] == command.message.meta.trace_id
    assert first["parent_id"] is None
    assert first["parent_invocation_id"] is None
    assert first["invocation_id"] == allowed
    assert (first["source"], first["actor"], first["channel"]) == ("operator", "operator", "mqtt")
    assert (first["capability_id"], first["capability_version"]) == ("actuator.set", "1")
    assert first["policy_decision_id"] == command.message.payload.decision_id
    assert first["policy_regime_id"] == world.regime.id
    assert first["policy_regime_id"].startswith("3:")
    assert (first["allowed"], second["allowed"]) == (1, 0)
    assert first["reason_codes"] == '["allowed", "rule:operators"]'
    assert second["reason_codes"] == '["denied", "rule:not-the-door"]'
    assert first["obligations"] == "[]"
    assert (second["invocation_id"], second["target"]) == (denied, "b1/door")


@pytest.mark.req("S3-66")
def test_a_repeat_is_no_second_invocation_and_a_parent_is_kept() -> None:
    world = World()
    ask = Ask(action_id(), parent=action_id())
    for _ in range(3):
        world.ask(ask)
    assert [row["parent_id"] for row in world.audit()[1:]] == [ask.parent]


def test_a_change_of_the_rules_is_audited() -> None:
    world = World()
    world.apply(world.policy.step(RegimeChanged(None), NOW_MS))
    rows = world.audit()
    assert [(row["kind"], row["allowed"], row["policy_regime_id"]) for row in rows] == [
        ("regime", 1, world.regime.id),
        ("regime", 0, "none"),
    ]


@pytest.mark.req("S4-46")
def test_without_an_audit_row_there_is_no_action() -> None:
    world = World()
    world.database.execute("DROP TABLE audit")
    action = action_id()
    with pytest.raises(sqlite3.OperationalError):
        world.ask(Ask(action))
    assert not world.published
    assert action not in world.stored()


@pytest.mark.req("S4-49")
@pytest.mark.parametrize(
    "column", ["actor", "allowed", "recorded_ms", "hash", "previous_hash", "sequence"]
)
def test_a_flipped_byte_anywhere_in_the_audit_is_noticed(column: str) -> None:
    world = World()
    for _ in range(3):
        world.ask(Ask(action_id()))
    assert verify_chain(world.database).rows == 4
    world.database.execute("DROP TRIGGER audit_is_never_updated")
    changed = {"actor": "'nobody'", "hash": f"'{'0' * 64}'", "previous_hash": f"'{'1' * 64}'"}
    value = changed.get(column, f"{column} + 7")
    world.database.execute(f"UPDATE audit SET {column} = {value} WHERE sequence = 2")  # noqa: S608
    with pytest.raises(AuditChainError, match="row"):
        verify_chain(world.database)


@pytest.mark.req("S4-49")
def test_the_audit_is_only_ever_appended_and_a_removed_row_is_noticed() -> None:
    world = World()
    for _ in range(3):
        world.ask(Ask(action_id()))
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            world.database.execute(statement)
    head = verify_chain(world.database).head
    world.database.execute("DROP TRIGGER audit_is_never_deleted")
    world.database.execute("DELETE FROM audit WHERE sequence = 4")
    assert verify_chain(world.database).head != head
    world.database.execute("DELETE FROM audit WHERE sequence = 1")
    with pytest.raises(AuditChainError):
        verify_chain(world.database)


def test_a_file_that_is_no_audit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditChainError, match="cannot be opened"):
        verify_file(tmp_path / "none.db")
    database = sqlite3.connect(tmp_path / "other.db")
    database.execute("CREATE TABLE other (x)")
    database.close()
    with pytest.raises(AuditChainError, match="no such table"):
        verify_file(tmp_path / "other.db")


def test_an_audit_can_be_verified_from_its_file(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "command.db", isolation_level=None)
    database.executescript("".join(STORE_SCHEMA))
    append(database, [])
    database.close()
    assert verify_file(tmp_path / "command.db").rows == 0


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[[rule", "policy.toml:1", "not valid TOML"),
        ('version = "two"', "policy.toml:1", "version"),
        ("rules = 1", "policy.toml:1", "rules"),
        (rule(effect="perhaps"), "policy.toml:4", "rule r: effect"),
        (rule(id="a") + rule(target="lamp"), "policy.toml:14", "rule r: targets"),
        (rule(principal="a*b"), "policy.toml:5", "rule r: principals"),
        (rule() + "limits = { value = {} }", "policy.toml:8", "rule r: limits"),
        (rule() + "limits.value.max = nan", "policy.toml:8", "rule r: limits"),
        (rule() + "limit = {}", "policy.toml:8", "rule r: limit"),
        ("rule = [1]", "policy.toml:1", "rule 1"),
        ("[[rule]]\n", "policy.toml:1", "rule 1: id"),
        ("[[rule]]\n" + rule(), "policy.toml:1", "rule 1: id"),
        (rule() + rule(), "policy.toml:9", "rule r: another rule has this id"),
    ],
)
def test_a_wrong_policy_file_names_file_line_and_rule(text: str, where: str, what: str) -> None:
    with pytest.raises(PolicyFileError) as caught:
        parse(text.encode(), "policy.toml")
    assert caught.value.where == where
    assert caught.value.what.startswith(what)
    assert "nothing is allowed until it is right" in caught.value.hint


def test_a_policy_file_is_read_and_named_by_version_and_content(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(PolicyFileError, match="cannot be read"):
        load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(PolicyFileError, match="not valid TOML"):
        load(path)
    path.write_text(POLICY)
    first = load(path)
    path.write_text(POLICY + "# a word more\n")
    assert first.id != load(path).id
    assert first.rules == load(path).rules
    assert isinstance(first, Regime)


def test_time_and_connections_change_nothing() -> None:
    core = policy()
    assert core.tick(NOW_MS) == []
    assert core.step(Connected("core"), NOW_MS) == []
