"""The port's own clock, by which TLS judges the broker: set at boot, by the hub, and by need."""

import datetime as dt
import math

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from firmware.rigs import Certificates
from spinal.wallclock import WallClock

FUTURE = "The certificate validity starts in the future\n"  # as mbedTLS ends its lines
FORGED = "The certificate is not correctly signed by the trusted CA\n" + FUTURE
ESP32, RP2 = (2000, 1, 1, 5, 0, 0, 3, 0), (2021, 1, 1, 4, 0, 0, 3, 0)
# As far as it is read: version, serial number, algorithm, issuer, the begin of its validity.
DER = b"0\x1e0\x1c\xa0\x03\x02\x01\x02\x02\x01\x070\x000\x000\x0f\x17\x0d200101000000Z"
MOMENTS = st.datetimes(min_value=dt.datetime(2021, 1, 2), max_value=dt.datetime(2099, 12, 31))  # noqa: DTZ001 - UTC throughout


class Clock:
    """A port's RTC as it stands after power-on."""

    def __init__(self, moment: tuple[int, ...]) -> None:
        self.moment = moment

    def datetime(self, *moment: tuple[int, ...]) -> tuple[int, ...] | None:
        if not moment:
            return self.moment
        (self.moment,) = moment
        return None

    @property
    def says(self) -> dt.datetime:
        year, month, day, _, hour, minute, second, _ = self.moment
        return dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)


def own(certificates: Certificates) -> tuple[bytes, dt.datetime]:
    """A board's certificate in DER, and when it begins to be valid."""
    der = certificates.path("m1", "cert", "der").read_bytes()
    return der, x509.load_der_x509_certificate(der).not_valid_before_utc


@pytest.mark.parametrize("port", [ESP32, RP2], ids=["esp32", "rp2"])
def test_after_a_power_cut_no_certificate_of_ours_lies_in_the_future(
    certificates: Certificates, port: tuple[int, ...]
) -> None:
    der, valid = own(certificates)
    clock = Clock(port)

    assert WallClock(clock, der, None).was_behind
    assert clock.says == valid


@pytest.mark.parametrize("port", [ESP32, RP2], ids=["esp32", "rp2"])
@pytest.mark.parametrize("days", [-40, 0, 700])
def test_the_latest_moment_known_to_have_passed_counts(
    certificates: Certificates, port: tuple[int, ...], days: int
) -> None:
    der, valid = own(certificates)
    told = valid + dt.timedelta(days=days)
    before = WallClock(Clock(port), der, None)
    stored = before.tick(int(told.timestamp() * 1000))
    clock = Clock(port)
    WallClock(clock, der, stored)

    assert clock.says == max(told, valid)
    assert not WallClock(clock, der, stored).was_behind


@given(moment=MOMENTS)
def test_the_hubs_time_is_set_to_the_second(moment: dt.datetime) -> None:
    told = moment.replace(tzinfo=dt.UTC)
    clock = Clock(ESP32)
    made = WallClock(clock, DER, None)
    kept = made.tick(int(told.timestamp() * 1000))

    assert clock.says == told.replace(microsecond=0)
    assert kept == [*told.timetuple()[:6]]


@given(moment=MOMENTS)
def test_a_broker_with_a_newer_certificate_is_reached_in_the_end(moment: dt.datetime) -> None:
    begins = moment.replace(tzinfo=dt.UTC)
    clock = Clock(RP2)
    tries = 0
    made = WallClock(clock, DER, None)
    while clock.says < begins:
        assert made.refuse(FUTURE)
        tries += 1

    assert clock.says < begins + dt.timedelta(days=30)  # it is renewed 30 days before it ends
    behind = begins - Clock(RP2).says
    assert tries == math.ceil(behind / dt.timedelta(days=30))


@pytest.mark.parametrize("refusal", [FORGED, "The certificate validity has expired\n", ""])
def test_nobody_else_moves_the_clock(refusal: str) -> None:
    clock = Clock(RP2)

    assert not WallClock(clock, DER, None).refuse(refusal)
    assert clock.moment == RP2


@pytest.mark.parametrize("kept", [0, 1, 5, 40])
def test_what_is_no_certificate_is_refused(certificates: Certificates, kept: int) -> None:
    der, _ = own(certificates)
    with pytest.raises(ValueError, match="is no X"):
        WallClock(Clock(ESP32), der[:kept], None)


def test_times_beyond_2049_are_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    begins = dt.datetime(2051, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1 << 70)
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    clock = Clock(ESP32)

    assert WallClock(clock, made.public_bytes(serialization.Encoding.DER), None).was_behind
    assert clock.says == begins
