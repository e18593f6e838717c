"""The gate algebra, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervus.thalamus import Gate, Thresholds, judge
from nervus.thalamus.gate import DECISIONS

inhibitions = st.floats(0, 1)
modes = st.sampled_from(["multi", "winner_take_all", "passthrough"])
gates = st.builds(Gate, inhibitions, modes)
priorities = st.sampled_from(["control", "critical", "normal", "background"])


@pytest.mark.req("S2-5", "S2-15", "S2-64", "S2-65")
@pytest.mark.parametrize(
    ("inhibition", "decision"),
    [
        (0, "pass"),
        (0.299, "pass"),
        (0.3, "attenuate"),
        (0.799, "attenuate"),
        (0.8, "aggregate"),
        (0.999, "aggregate"),
        (1, "drop"),
    ],
)
def test_inhibition_decides(inhibition: float, decision: str) -> None:
    verdict = judge("normal", [Gate(inhibition)], gatekeeper=True)
    assert (verdict.decision, verdict.inhibition) == (decision, inhibition)
    assert verdict.reasons == ("gate",)


@pytest.mark.parametrize("priority", ["control", "critical"])
def test_control_and_critical_pass_every_gate(priority: str) -> None:
    verdict = judge(priority, [Gate(1, "winner_take_all")], gatekeeper=True)  # type: ignore[arg-type]
    assert (verdict.decision, verdict.inhibition) == ("pass", 1)
    assert verdict.reasons == ("critical_bypass",)
    assert not verdict.contest


def test_the_highest_inhibition_counts() -> None:
    assert judge("normal", [Gate(0.1), Gate(0.9), Gate(0.4)], gatekeeper=True).inhibition == 0.9


def test_a_gate_in_mode_passthrough_inhibits_nothing() -> None:
    assert judge("normal", [Gate(1, "passthrough")], gatekeeper=True).decision == "pass"
    assert judge("normal", [Gate(1, "passthrough"), Gate(1)], gatekeeper=True).decision == "drop"


@pytest.mark.req("S2-71")
def test_without_a_living_gate_what_is_not_critical_is_aggregated() -> None:
    assert judge("normal", [], gatekeeper=True).decision == "aggregate"
    assert judge("critical", [], gatekeeper=True).decision == "pass"


def test_where_there_is_no_gatekeeper_everything_passes() -> None:
    verdict = judge("background", [], gatekeeper=False)
    assert (verdict.decision, verdict.reasons) == ("pass", ("no_gatekeeper",))


def test_a_gate_counts_also_where_no_gatekeeper_is_configured() -> None:
    assert judge("normal", [Gate(1)], gatekeeper=False).decision == "drop"


@pytest.mark.parametrize(("inhibition", "contest"), [(0, True), (0.9, True), (1, False)])
def test_winner_takes_all_among_what_is_not_dropped(inhibition: float, contest: bool) -> None:  # noqa: FBT001  a table
    verdict = judge("normal", [Gate(inhibition, "winner_take_all"), Gate(0)], gatekeeper=True)
    assert verdict.contest is contest


def test_the_thresholds_are_parameters() -> None:
    strict = Thresholds(attenuate=0.1, aggregate=0.2, drop=0.3)
    decisions = [
        judge("normal", [Gate(x)], gatekeeper=True, thresholds=strict).decision
        for x in (0.05, 0.15, 0.25, 0.35)
    ]
    assert decisions == list(DECISIONS)


@given(priorities, st.lists(gates, max_size=5), gates, st.booleans())
def test_one_more_gate_never_lets_more_pass(priority, met, more, gatekeeper) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  given by hypothesis
    before = judge(priority, met or [Gate(0)], gatekeeper=gatekeeper)
    after = judge(priority, [*(met or [Gate(0)]), more], gatekeeper=gatekeeper)
    assert DECISIONS.index(after.decision) >= DECISIONS.index(before.decision)
    assert after.inhibition >= before.inhibition
