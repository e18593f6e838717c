"""Raw opt-ins: each decided by itself, with a cap and an end, audited before it opens anything."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hub.command_inputs import NOW_MS, World
from hub.test_policy import policy
from nervus.policy import Policy, PolicyFileError, RegimeChanged, parse
from nervus.policy.audit import verify_chain
from nervus.policy.raw import OpenRaw
from nervus.policy.record import AppendAudit, AuditRecord
from nervus.wire.raw import RawGrant
from nervus.wire.times import NEVER

PREFIX = "/sc/aff/event/room/kitchen/sensor/sound_level"


def asked(name: str = "noise", **fields: Any) -> str:
    """A [[raw]] table; fields that are None are left out."""
    table = {
        "topic_prefix": f'"{PREFIX}"',
        "rate": 20,
        "expires": at(NOW_MS + 60_000),
        "reason": '"listening"',
    }
    lines = [f"{key} = {value}" for key, value in (table | fields).items() if value is not None]
    return "\n".join(["[[raw]]", f'id = "{name}"', *lines, ""])


def at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def read(core: Policy, *tables: str, now_ms: int = NOW_MS) -> tuple[list[AuditRecord], OpenRaw]:
    """What comes of a policy file with these tables: the audit of opt-ins, and what is open."""
    regime = parse("\n".join(tables).encode(), "policy.toml")
    return told(core.step(RegimeChanged(regime), now_ms))


def told(effects: list[Any]) -> tuple[list[AuditRecord], OpenRaw]:
    records = [each.record for each in effects if isinstance(each, AppendAudit)]
    *_, last = effects
    assert isinstance(last, OpenRaw)
    return [record for record in records if record.kind == "raw"], last


@pytest.mark.req("S2-29", "S0-13")
def test_an_opt_in_is_audited_with_its_cap_and_its_end_and_then_opened() -> None:
    (record,), opened = read(policy(""), asked())
    assert opened.grants == (
        RawGrant(
            id="noise",
            topic_prefix=PREFIX,
            rate=20,
            expires_ms=NOW_MS + 60_000,
            decision_id=record.policy_decision_id,
        ),
    )
    assert opened.grants[0].filter == f"{PREFIX}/device/+"
    assert (record.allowed, record.target, record.capability_id) == (True, PREFIX, "raw.relay")
    assert record.reason_codes == ("raw_granted", "rule:noise")
    assert record.obligations == ("rate:20/s", "expires:2026-09-21T14:14:20.000Z")


@pytest.mark.req("S2-29", "S0-13")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"topic_prefix": '"/sc/aff/event"'}, "raw_prefix_too_broad"),
        ({"topic_prefix": '"/sc/aff/event/#"'}, "raw_prefix_too_broad"),
        ({"topic_prefix": '"/sc/aff/event/room/kitchen/"'}, "raw_prefix_too_broad"),
        ({"topic_prefix": '"/sc/aff/event/room/kitchen/sensor"'}, "raw_prefix_too_broad"),
        ({"topic_prefix": '"/sc/aff/event/room/+/sensor/sound_level"'}, "raw_prefix_invalid"),
        ({"topic_prefix": f'"{PREFIX}/#"'}, "raw_prefix_invalid"),
        ({"topic_prefix": f'"{PREFIX}\\ntopic readwrite #"'}, "raw_prefix_invalid"),
        ({"topic_prefix": '"/sc/dev/state/device/b1/info"'}, "raw_prefix_invalid"),
        ({"topic_prefix": '"/C/request/event/room/kitchen"'}, "raw_prefix_invalid"),
        ({"topic_prefix": '"/sc/aff/event/room/kitchen/sensor/odor"'}, "raw_sensor_unknown"),
        ({"expires": at(NOW_MS)}, "raw_expired"),
        ({"expires": at(NOW_MS + 86_400_001)}, "raw_expires_too_late"),
        ({"rate": 51}, "raw_rate_too_high"),
    ],
)
def test_what_asks_for_too_much_is_refused_with_the_reason(
    fields: dict[str, Any], reason: str
) -> None:
    # One that is refused takes nothing from one that is not.
    records, opened = read(policy(""), asked("greedy", **fields), asked("b", rate=1))
    assert [record.reason_codes[0] for record in records] == [reason, "raw_granted"]
    assert [record.allowed for record in records] == [False, True]
    assert records[0].obligations == ()
    assert [grant.id for grant in opened.grants] == ["b"]


@pytest.mark.parametrize("narrow_first", [False, True])
def test_two_that_overlap_are_not_both_opened(*, narrow_first: bool) -> None:
    tables = [asked("wide"), asked("narrow", topic_prefix=f'"{PREFIX}/device/b1"')]
    records, opened = read(policy(""), *(reversed(tables) if narrow_first else tables))
    assert [record.reason_codes[0] for record in records] == ["raw_granted", "raw_overlaps"]
    assert [grant.id for grant in opened.grants] == ["narrow" if narrow_first else "wide"]
    other = asked("other", topic_prefix='"/sc/aff/event/room/kitchen/sensor/motion/device/b1"')
    records, opened = read(policy(""), asked("wide"), other)
    assert [grant.filter for grant in opened.grants] == [
        f"{PREFIX}/device/+", "/sc/aff/event/room/kitchen/sensor/motion/device/b1",
    ]  # fmt: skip


@pytest.mark.req("S2-29")
@pytest.mark.parametrize("missing", ["rate", "expires", "reason", "topic_prefix"])
def test_without_cap_end_or_reason_it_is_no_opt_in_and_the_file_is_wrong(missing: str) -> None:
    text = "version = 1\n" + asked(**{missing: None})
    with pytest.raises(PolicyFileError, match=f"raw noise: {missing}: Field required") as caught:
        parse(text.encode(), "policy.toml")
    assert caught.value.where == "policy.toml:2"


@pytest.mark.parametrize("expires", ["2026-09-21T14:14:20", '"for ever"'])
def test_an_end_names_its_time_zone(expires: str) -> None:
    with pytest.raises(PolicyFileError, match="raw noise: expires"):
        parse(asked(expires=expires).encode(), "policy.toml")


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(PolicyFileError, match="raw noise: another raw has this id"):
        parse((asked() + asked()).encode(), "policy.toml")


@pytest.mark.req("S2-29")
def test_it_ends_by_itself_when_it_expires_and_that_is_audited() -> None:
    core = policy("")
    read(core, asked(), asked("b", topic_prefix=f'"{PREFIX.replace("kitchen", "hall")}"',
                              expires=at(NOW_MS + 90_000)))  # fmt: skip
    assert core.due_ms == NOW_MS + 60_000
    assert core.tick(NOW_MS + 59_999) == []
    (record,), opened = told(core.tick(NOW_MS + 60_000))
    assert (record.allowed, record.reason_codes[0]) == (False, "raw_expired")
    assert [grant.id for grant in opened.grants] == ["b"]
    assert core.due_ms == NOW_MS + 90_000
    assert core.tick(NOW_MS + 60_050) == []
    # The same table read again asks for what is over.
    (refused, ended), opened = read(core, asked(), now_ms=NOW_MS + 61_000)
    assert {refused.reason_codes[0], ended.reason_codes[0]} == {"raw_expired", "raw_withdrawn"}
    assert opened.grants == ()
    assert core.due_ms == NEVER


@pytest.mark.req("S2-29", "S4-46")
@pytest.mark.parametrize("text", [None, "", asked(rate=5)])
def test_it_ends_when_the_file_no_longer_asks_for_it(text: str | None) -> None:
    core = policy("")
    read(core, asked())
    regime = None if text is None else parse(text.encode(), "policy.toml")
    records, opened = told(core.step(RegimeChanged(regime), NOW_MS + 1))
    assert records[0].reason_codes == ("raw_withdrawn", "rule:noise")
    assert [grant.rate for grant in opened.grants] == ([5] if text else [])


def test_a_file_that_changes_elsewhere_leaves_it_open_and_writes_no_second_record() -> None:
    core = policy("")
    _, before = read(core, asked())
    records, after = read(core, "version = 2", asked(), now_ms=NOW_MS + 1_000)
    assert records == []
    assert after == before


def test_the_audit_keeps_it_like_every_decision() -> None:
    world = World()
    before = verify_chain(world.database).rows
    world.apply(world.policy.step(RegimeChanged(parse(asked().encode(), "p")), world.now_ms))
    rows = world.database.execute("SELECT kind, allowed FROM audit ORDER BY sequence").fetchall()
    assert rows[before:] == [("regime", 1), ("raw", 1)]
    assert verify_chain(world.database).rows == before + 2
