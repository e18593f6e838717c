"""The board's envelope: messages the hub takes, and the refusal of those it must not act on."""

import copy
import datetime as dt
import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import VALID
from nervus.wire.contracts import CONTRACTS, ReasonCode
from spinal.clock import Clock
from spinal.envelope import Envelope, Recent, WireError, expired, mark_historical, parse, unix_of
from spinal.ids import MessageIds
from spinal.jsonprint import dumps, quoted
from spinal.jsonscan import JSONError, loads
from spinal.ticks import later

NOW = 1_790_000_000_000
PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(), part, max_size=4),
    max_leaves=12,
)


def synced_clock() -> Clock:
    clock = Clock()
    assert clock.pong({**clock.ping(0), "unix_ms": NOW}, 0) is None
    return clock


def writer(clock: Clock | None = None, device_id: str = "porch-1") -> Envelope:
    return Envelope(device_id, 12, MessageIds(bytes(10)), clock or synced_clock())


def refusal(data: bytes) -> tuple[str, str]:
    with pytest.raises(WireError) as caught:
        parse(data)
    assert caught.value.code in get_args(ReasonCode)
    return caught.value.code, caught.value.stage


def message(contract: str = "EfferentCommand") -> dict[str, Any]:
    return copy.deepcopy(VALID[contract][1])


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


class TestWhatABoardSays:
    @given(
        st.lists(
            st.integers(-5000, 2**28)
            | st.integers(0, 20)
            | st.integers(NOW - 10**10, NOW + 10**10).map(lambda unix_ms: {"unix_ms": unix_ms}),
            max_size=30,
        )
    )
    def test_time_and_number_are_those_of_the_message_whatever_the_last_one_said(
        self, steps: list[int | dict[str, int]]
    ) -> None:
        clock = Clock()
        envelope = writer(clock)
        tick = 10_000
        for step in steps:
            if isinstance(step, dict):
                assert clock.pong({**clock.ping(tick), **step}, tick) is None
            else:
                tick = later(tick, step)
            said = json.loads(bytes(envelope.afferent("door", 1, None, tick, 1000)))["meta"]
            assert (said["t_ms"], said["clk"]) == clock.now(tick)
            assert said["seq"] == envelope.last_seq

    @pytest.mark.req("S0-43", "S0-45", "S0-46", "S0-47", "S0-48", "S0-51", "S0-56")
    @given(
        value=st.booleans()
        | st.integers(1 - 2**53, 2**53 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=64),
        sensor=st.text(
            st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")),
            min_size=1,
            max_size=64,
        ),
        unit=st.none() | st.sampled_from(["Cel", "%", 'a"b\\', "µg/m3"]),
        priority=st.sampled_from([None, "critical"]),
        device_id=st.sampled_from(["m1", "é x", 'q"q']),
        ticks_ms=st.integers(0, 2**28),
        synced=st.booleans(),
    )
    def test_the_hub_takes_every_afferent(  # noqa: PLR0917 - each is one field
        self,
        value: object,
        sensor: str,
        unit: str | None,
        priority: str | None,
        device_id: str,
        ticks_ms: int,
        synced: bool,  # noqa: FBT001 - a case of the property
    ) -> None:
        clock = synced_clock() if synced else Clock()
        clock.now(0)
        envelope = writer(clock, device_id)
        for seq in range(3):
            data = bytes(envelope.afferent(sensor, value, unit, ticks_ms + seq, 10_000, priority))
            told = json.loads(data)
            assert CONTRACTS["AfferentSignal"].model_validate_json(data)
            assert told["payload"]["value"] == value
            assert type(told["payload"]["value"]) is type(value)
            assert told["payload"]["sensor_type"] == sensor
            assert told["payload"].get("unit") == unit
            meta = told["meta"]
            assert meta["source"] == "device:" + device_id
            assert (meta["boot"], meta["seq"]) == (12, seq)
            assert meta["clk"] == ("hub" if synced else "none")
            assert meta["t_ms"] == ticks_ms + seq + (NOW if synced else 0)
            assert (meta["ttl_ms"], meta.get("priority")) == (10_000, priority)

    @pytest.mark.req("S0-65")
    def test_a_message_holds_the_compact_fields_and_no_others(self) -> None:
        data = writer().afferent("temperature", 21.37, "Cel", 5, 10_000)
        assert len(data) <= 430
        assert sorted(json.loads(bytes(data))["meta"]) == sorted(
            [
                "message_id",
                "schema_version",
                "contract",
                "message_type",
                "source",
                "boot",
                "seq",
                "t_ms",
                "clk",
                "ttl_ms",
            ]
        )

    def test_sensors_and_priorities_do_not_mix(self) -> None:
        envelope = writer()
        told = [
            json.loads(bytes(envelope.afferent(sensor, value, unit, 0, 1000, priority)))
            for sensor, value, unit, priority in (
                ("light", 100000, "lx", None),
                ("door", True, None, "critical"),
                ("light", 7, "lx", "critical"),
                ("light", 8, "lx", None),
                ("light", 9, "W/m2", None),
            )
        ]
        assert [each["meta"]["seq"] for each in told] == [0, 1, 2, 3, 4]
        assert [each["meta"].get("priority") for each in told] == [
            *(None, "critical", "critical", None, None)
        ]
        assert [tuple(each["payload"].values()) for each in told] == [
            ("light", "lx", 100000),
            ("door", True),
            ("light", "lx", 7),
            ("light", "lx", 8),
            ("light", "W/m2", 9),
        ]
        assert len({each["meta"]["message_id"] for each in told}) == 5

    def test_a_buffer_grows_with_its_longest_value(self) -> None:
        envelope = writer()
        for value in ("short", "é" * 64, "short", {"x": 1.5, "name": "y" * 60}, 7):
            told = json.loads(bytes(envelope.afferent("label", value, None, 0, 1000)))
            assert told["payload"]["value"] == value

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, b"x", {"a": math.nan}])
    def test_what_is_no_json_is_not_sent_and_uses_up_no_number(self, value: object) -> None:
        envelope = writer()
        with pytest.raises(ValueError, match=r"JSON"):
            envelope.afferent("temperature", value, "Cel", 0, 1000)
        with pytest.raises(ValueError, match=r"JSON"):
            envelope.build("DeviceLog", {"text": value}, 0)
        assert envelope.last_seq == -1
        assert (
            json.loads(bytes(envelope.afferent("temperature", 1, "Cel", 0, 1)))["meta"]["seq"] == 0
        )

    def test_a_message_too_long_to_send_is_refused(self) -> None:
        envelope = writer()
        with pytest.raises(ValueError, match="at most 4096"):
            envelope.build("DeviceLog", {"text": "x" * 4096}, 0)
        with pytest.raises(ValueError, match="at most 4096"):
            envelope.afferent("name", "x" * 4096, None, 0, 1000)
        assert envelope.last_seq == -1

    @pytest.mark.parametrize("contract", ["EfferentReport", "ReflexFire", "Ping", "DeviceStatus"])
    def test_the_hub_takes_what_is_built(self, contract: str) -> None:
        example = message(contract)
        meta = example["meta"]
        envelope = writer()
        for seq in range(3):
            data = envelope.build(
                contract,
                example["payload"],
                700,
                ttl_ms=meta.get("ttl_ms"),
                action_id=meta.get("action_id"),
                deadline_ms=250,
                priority="control",
            )
            assert CONTRACTS[contract].model_validate_json(data)
            told = json.loads(data)
            assert told["payload"] == example["payload"]
            assert told["meta"]["deadline_ms"] == 250
            assert (told["meta"]["seq"], told["meta"]["t_ms"]) == (seq, NOW + 700)

    def test_another_time_can_be_told(self) -> None:
        data = writer().build("Ping", {"nonce": 1, "t0": 2}, 0, 1000, t_ms=55, clk="none")
        assert json.loads(data)["meta"]["t_ms"] == 55
        assert json.loads(data)["meta"]["clk"] == "none"

    def test_what_waited_is_marked_once_and_else_unchanged(self) -> None:
        envelope = writer(device_id='tricky"},"payload":')
        for data in (
            bytes(envelope.afferent("door", "open", None, 0, 1000)),
            envelope.build("ReflexFire", message("ReflexFire")["payload"], 0, 1000),
        ):
            marked = mark_historical(data)
            told = json.loads(marked)
            assert told["meta"].pop("historical") is True
            assert told == json.loads(data)
            assert mark_historical(marked) == marked
        assert (
            mark_historical(
                envelope.build("Ping", {"nonce": 1, "t0": 2}, 0, historical=True)
            ).count(b"historical")
            == 1
        )

    def test_only_messages_can_be_marked(self) -> None:
        with pytest.raises(ValueError, match="no payload"):
            mark_historical(b"{}")


class TestWhatABoardTakes:
    @pytest.mark.parametrize(
        "contract", ["EfferentCommand", "Pong", "ReflexConfigure", "ReflexTrigger"]
    )
    def test_a_valid_message_is_read(self, contract: str) -> None:
        meta, payload = parse(as_bytes(message(contract)))
        assert {"meta": meta, "payload": payload} == message(contract)

    @pytest.mark.req("S0-82", "S0-83")
    @pytest.mark.parametrize("contract", ["AfferentSignal", "RelayBundle", "Nonsense", None, 5])
    def test_a_contract_outside_the_allow_list_is_refused(self, contract: object) -> None:
        changed = message()
        changed["meta"]["contract"] = changed["meta"]["message_type"] = contract
        assert refusal(as_bytes(changed)) == ("contract_not_allowed", "allow")

    @pytest.mark.req("S0-48", "S0-49")
    @pytest.mark.parametrize("other", ["efferentcommand", "EfferentCommand ", "Pong"])
    def test_a_message_type_that_is_not_the_contract_is_drift(self, other: str) -> None:
        changed = message()
        changed["meta"]["message_type"] = other
        assert refusal(as_bytes(changed)) == ("contract_drift", "drift")

    @pytest.mark.req("S0-57", "S2-76")
    @pytest.mark.parametrize("field", ["deadline_ms", "action_id", "ttl_ms", "boot", "clk"])
    def test_a_command_without_a_required_field_is_refused(self, field: str) -> None:
        changed = message()
        del changed["meta"][field]
        missing = (
            ("expiry_missing", "expiry") if field == "ttl_ms" else ("schema_invalid", "schema")
        )
        assert refusal(as_bytes(changed)) == missing

    @pytest.mark.parametrize(
        ("data", "code", "stage"),
        [
            (b"", "empty_payload", "size"),
            (b"{" + b" " * 5000, "oversize", "size"),
            (b"\xd9\xd9\xf7\xa0", "schema_invalid", "schema"),
            (b"\xd9\xd9\xf7\xff", "decode_error", "decode"),
            (b"\x12\x00", "unsupported_encoding", "decode"),
            (b"{", "decode_error", "decode"),
            (b"[1 2]", "decode_error", "decode"),
            (b"[]", "schema_invalid", "schema"),
            (b"{}", "schema_invalid", "schema"),
            (b'{"meta":[]}', "schema_invalid", "schema"),
        ],
    )
    def test_what_is_no_message_is_refused_with_its_reason(
        self, data: bytes, code: str, stage: str
    ) -> None:
        assert refusal(data) == (code, stage)

    def test_another_version_is_named(self) -> None:
        changed = message()
        changed["meta"]["schema_version"] = "v2"
        assert refusal(as_bytes(changed)) == ("unsupported_version", "schema")

    def test_a_refusal_carries_the_metadata_as_far_as_it_was_read(self) -> None:
        changed = message()
        changed["payload"] = {}
        with pytest.raises(WireError) as caught:
            parse(as_bytes(changed))
        assert caught.value.meta == changed["meta"]
        assert "/payload/actuator" in caught.value.text

    @given(st.binary(max_size=200))
    def test_no_bytes_break_the_reader(self, data: bytes) -> None:
        refusal(data)

    @pytest.mark.req("S0-85")
    def test_a_message_expires_by_its_own_clock_or_at_a_time(self) -> None:
        meta = {"t_ms": NOW, "clk": "hub", "ttl_ms": 500}
        assert not expired(meta, NOW + 499)
        assert expired(meta, NOW + 500)
        until = {"t_ms": 0, "clk": "none", "expires_at": "2026-11-20T20:00:00.000Z"}
        assert not expired(until, unix_of("2026-11-20T19:59:59.999Z"))
        assert expired(until, unix_of("2026-11-20T20:00:00.000Z"))

    def test_without_a_clock_on_either_side_nothing_expires(self) -> None:
        assert not expired({"t_ms": NOW, "clk": "hub", "ttl_ms": 0}, None)
        assert not expired({"t_ms": 5, "clk": "none", "ttl_ms": 0}, NOW)

    @given(st.integers(946_684_800_000, 4_102_444_799_999))
    def test_a_timestamp_is_read_as_the_calendar_says(self, unix_ms: int) -> None:
        moment = dt.datetime.fromtimestamp(unix_ms // 1000, dt.UTC)
        text = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{unix_ms % 1000:03d}Z"
        assert unix_of(text) == unix_ms

    @pytest.mark.req("S0-86")
    def test_a_message_is_taken_once_for_each_source(self) -> None:
        recent = Recent(3)
        first = {"source": "reliable", "message_id": "A"}
        assert not recent.seen(first)
        assert recent.seen(dict(first))
        assert not recent.seen({"source": "other", "message_id": "A"})
        for each in "BCD":
            assert not recent.seen({"source": "reliable", "message_id": each})
        assert not recent.seen(first)


class TestStrictJson:
    @given(json_values)
    def test_what_is_written_is_read_back(self, value: object) -> None:
        text = dumps(value)
        assert json.loads(text) == value
        assert loads(text.encode(), 1 << 20) == value

    @given(json_values, st.booleans())
    def test_what_others_write_is_read(self, value: object, ascii_only: bool) -> None:  # noqa: FBT001 - a case
        text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
        assert loads(text.encode(), 1 << 20) == json.loads(text)

    @given(st.text('{}[]",:0123456789.eE+-truefalsn \\u\x00d8', max_size=12))
    def test_nothing_is_read_that_the_standard_reader_refuses(self, text: str) -> None:
        try:
            value = loads(text.encode())
        except JSONError:
            return
        assert json.loads(text) == value

    def test_one_byte_off_is_refused_or_read_as_others_do(self) -> None:
        text = b'{"a":"bc","d":{"e":-1.5e2,"f":[1,"",true]},"g":{},"h":10,"ij":"k"}'
        assert loads(text) == json.loads(text)
        read = 0
        for at in range(len(text) + 1):
            for byte in b'{}[]",: \n\t\\/0-.+eutfax\x00\x7f\x80\xc3\xff':
                for rest in (at, at + 1):
                    changed = text[:at] + bytes((byte,)) + text[rest:]
                    try:
                        value = loads(changed)
                    except JSONError:
                        continue
                    assert json.loads(changed) == value, changed
                    read += 1
        assert read > len(text)

    @pytest.mark.parametrize(
        "text",
        [
            *(b"[1 2]", b"01", b"-01", b"1.", b".5", b"+1", b"1e", b"0x1", b"NaN", b"-Infinity"),
            *(b"1e999", b"-1e999", b"9007199254740993", b"-9007199254740993", b"9" * 3000),
            *(b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b'{"a":1,}', b"[1,]", b"{1:2}", b"{,}"),
            *(b'"\t"', b'"\\x"', b'"\\ud800"', b'"\\ud800\\u0041"', b'"\\udc00"', b'"\\u00g0"'),
            *(b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"'),
            *(
                b"[" * 17 + b"]" * 17,
                b"true false",
                b"True",
                b"'a'",
                b"",
                b" ",
                b'"a',
                b'"\\',
                b"[",
            ),
            *(b"\xef\xbb\xbf1", b"1\x00", b'{"a"}', b'{"a":', b"-", b'"\\u12"', b'"\\u12'),
        ],
    )
    def test_sloppy_json_is_refused_and_says_where(self, text: bytes) -> None:
        with pytest.raises(JSONError, match=r"at byte \d+"):
            loads(text)

    def test_the_size_is_bounded_before_anything_is_read(self) -> None:
        with pytest.raises(JSONError, match="at most 10"):
            loads(b"[" * 11, 10)

    def test_keys_are_sorted_and_floats_can_be_shortened(self) -> None:
        assert dumps({"b": [1, 2.0], "a": {"d": None, "c": "é\n"}}) == (
            '{"a":{"c":"é\\n","d":null},"b":[1,2.0]}'
        )
        assert dumps([21.370001, 1e6, 2, -0.5], "%.6g") == "[21.37,1e+06,2,-0.5]"

    @pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, math.nan, b"x", object()])
    def test_what_json_cannot_say_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"JSON|no string"):
            dumps(value)

    def test_a_structure_too_deep_to_read_is_not_written(self) -> None:
        value: object = 1
        for _ in range(16):
            value = [value]
        assert loads(dumps(value).encode()) == value
        with pytest.raises(ValueError, match="deeper than 16"):
            dumps([value])

    @given(st.text())
    def test_every_text_can_be_quoted(self, text: str) -> None:
        assert json.loads(quoted(text)) == text
