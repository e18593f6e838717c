import json
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nervus.runtime.identity import Authority, AuthorityError, Identity, IdentityError
from nervus.runtime.state import StateFolder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder.create(tmp_path / "state")


@pytest.fixture
def authority(state: StateFolder) -> Authority:
    return Authority.create(state)


def certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.cert.read_bytes())


def test_a_client_certificate_names_its_holder_and_serves_clients_alone(
    authority: Authority,
) -> None:
    issued = certificate(authority.issue("console", "operator"))
    name = issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert name == "console"
    assert names.get_values_for_type(x509.DNSName) == ["console"]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_validity_is_a_year_for_parts_and_ten_for_the_authority(state: StateFolder) -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    authority = Authority.create(state, clock=lambda: now)
    issued = certificate(authority.issue("console", "operator"))
    root = x509.load_pem_x509_certificate((state.ca / "cert.pem").read_bytes())
    assert issued.not_valid_after_utc == now + timedelta(days=365)
    assert root.not_valid_after_utc.year == 2036
    assert issued.not_valid_before_utc < now


def test_openssl_accepts_the_chain_for_its_purpose_and_no_other(authority: Authority) -> None:
    client = authority.issue("console", "operator")
    server = authority.ensure_server("broker-core", ["localhost", "127.0.0.1"])

    def verify(identity: Identity, purpose: str) -> int:
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile"]
        command += [str(identity.ca), str(identity.cert)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert verify(client, "sslclient") == 0
    assert verify(client, "sslserver") != 0
    assert verify(server, "sslserver") == 0
    assert verify(server, "sslclient") != 0


def test_keys_and_folders_are_private(authority: Authority, state: StateFolder) -> None:
    authority.issue("porch", "board", "room/porch")
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (state.path, *state.path.rglob("*"))
        if path.name != ".lock"
    }
    assert len(modes) > 10
    exposed = [path for path, mode in modes.items() if mode & 0o077]
    assert exposed == []


def test_a_board_also_gets_der_files_of_the_same_key(authority: Authority) -> None:
    board = authority.issue("porch", "board", "room/porch")
    issued = certificate(board)
    from_der = x509.load_der_x509_certificate((board.folder / "cert.der").read_bytes())
    key = load_der_private_key((board.folder / "key.der").read_bytes(), password=None)
    assert from_der == issued
    assert key.public_key() == issued.public_key()
    assert not (authority.issue("console", "operator").folder / "key.der").exists()


def test_issuing_again_rotates_and_remembers_the_old_serial(
    authority: Authority, state: StateFolder
) -> None:
    first = authority.issue("console", "operator")
    old_key = first.key.read_bytes()
    second = authority.issue("console", "operator")
    registry = json.loads(state.registry_file.read_text())
    assert second.key.read_bytes() != old_key
    assert [record["serial"] for record in registry["superseded"]] == [first.serial]
    assert [identity.serial for identity in authority.identities()] == [second.serial]


def test_ensure_keeps_what_fits_and_replaces_what_does_not(authority: Authority) -> None:
    first = authority.ensure("porch", "board", "room/porch")
    assert authority.ensure("porch", "board", "room/porch") == first
    moved = authority.ensure("porch", "board", "room/hall")
    assert moved.scope == "room/hall"
    moved.key.write_text("damaged")
    assert authority.ensure("porch", "board", "room/hall").serial != moved.serial


def test_ensure_renews_thirty_days_before_the_end(state: StateFolder) -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    early = Authority.create(state, clock=lambda: now).ensure("relay", "relay")
    just_before = Authority(state, clock=lambda: now + timedelta(days=334))
    assert just_before.ensure("relay", "relay") == early
    after = Authority(state, clock=lambda: now + timedelta(days=336))
    assert after.ensure("relay", "relay").serial != early.serial


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "a b", "a/b", "a+b", "a#", "ä", "a.b", "../x", "a\n"]
)
def test_a_name_that_is_no_topic_level_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(IdentityError, match="1 to 64"):
        authority.issue(name, "consumer")
    assert authority.identities() == []


def test_an_unknown_role_is_told_the_known_ones(authority: Authority) -> None:
    with pytest.raises(IdentityError, match=r"brainstem.*gatekeeper.*observer"):
        authority.issue("x", "admin")


@pytest.mark.parametrize("scope", ["kitchen", "floor/1", "room/", "room/a/b", "room/" + "a" * 65])
def test_a_scope_that_is_none_is_refused(authority: Authority, scope: str) -> None:
    with pytest.raises(IdentityError, match="room/kitchen"):
        authority.issue("porch", "board", scope)


def test_a_board_needs_a_scope_and_others_have_none(authority: Authority) -> None:
    with pytest.raises(IdentityError, match="--scope room/kitchen"):
        authority.issue("porch", "board")
    with pytest.raises(IdentityError, match="leave --scope out"):
        authority.issue("console", "operator", "room/kitchen")


def test_a_brokers_name_cannot_be_taken_by_a_client(authority: Authority) -> None:
    authority.ensure_server("broker-core", ["localhost"])
    with pytest.raises(IdentityError, match="belongs to a broker"):
        authority.issue("broker-core", "operator")


def test_a_brokers_certificate_is_replaced_when_its_hosts_change(authority: Authority) -> None:
    first = authority.ensure_server("broker-core", ["localhost"])
    assert authority.ensure_server("broker-core", ["localhost"]) == first
    moved = authority.ensure_server("broker-core", ["localhost", "192.0.2.1"])
    names = certificate(moved).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def verify_against_list(certificate_file: Path, state: StateFolder, *options: str) -> int:
    command = ["openssl", "verify", "-crl_check", "-CAfile", str(state.ca / "cert.pem"), *options]
    command += ["-CRLfile", str(state.ca / "crl.pem"), str(certificate_file)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_openssl_refuses_every_revoked_certificate_of_a_name_and_no_other(
    authority: Authority, state: StateFolder, tmp_path: Path
) -> None:
    other = authority.issue("lamp", "consumer")
    kept = []
    for number in range(2):
        kept.append(tmp_path / f"{number}.pem")
        kept[-1].write_bytes(authority.issue("console", "operator").cert.read_bytes())
    authority.write_revocation_list()
    assert [verify_against_list(path, state) for path in (*kept, other.cert)] == [0, 0, 0]
    revoked = authority.revoke("console")
    assert [one.name for one in revoked] == ["console", "console"]
    assert [verify_against_list(path, state) for path in (*kept, other.cert)] == [2, 2, 0]
    again = authority.issue("console", "operator")
    assert [verify_against_list(path, state) for path in (*kept, again.cert)] == [2, 2, 0]


def test_no_clock_within_the_authoritys_life_makes_the_list_out_of_date(
    authority: Authority, state: StateFolder
) -> None:
    """A list that is not valid now refuses everybody, and a Pi's clock may be hours behind."""
    kept = authority.issue("lamp", "consumer")
    authority.issue("console", "operator")
    authority.revoke("console")
    now = datetime.now(UTC)
    for when in (now - timedelta(hours=12), now + timedelta(days=300)):
        assert verify_against_list(kept.cert, state, "-attime", str(int(when.timestamp()))) == 0
    late = str(int((now + timedelta(days=400)).timestamp()))
    assert verify_against_list(kept.cert, state, "-attime", late) != 0


def test_a_revoked_identity_is_none_and_its_key_is_gone(authority: Authority) -> None:
    first = authority.issue("porch", "board", "room/porch")
    authority.revoke("porch")
    assert authority.identities() == []
    assert authority.find("porch") is None
    assert not first.folder.exists()
    one = authority.revoked()[0]
    assert (one.name, one.role, one.scope, one.serial) == (
        "porch",
        "board",
        "room/porch",
        first.serial,
    )
    assert authority.revoke("porch") == [one]


def test_an_interrupted_revocation_is_finished_by_the_next_start(
    authority: Authority, state: StateFolder, tmp_path: Path
) -> None:
    old = tmp_path / "old.pem"
    old.write_bytes(authority.issue("console", "operator").cert.read_bytes())
    authority.write_revocation_list()
    before = authority.revocation_list.read_bytes()
    authority.revoke("console")
    authority.revocation_list.write_bytes(before)
    assert verify_against_list(old, state) == 0
    authority.write_revocation_list()
    assert verify_against_list(old, state) == 2


def test_a_name_that_was_never_issued_or_is_a_brokers_is_not_revoked(
    authority: Authority,
) -> None:
    server = authority.ensure_server("broker-core", ["localhost"])
    with pytest.raises(IdentityError, match="belongs to a broker"):
        authority.revoke("broker-core")
    with pytest.raises(IdentityError, match="there is no identity 'nobody'"):
        authority.revoke("nobody")
    assert server.cert.exists()


def test_a_registry_of_another_version_says_what_to_do(
    authority: Authority, state: StateFolder
) -> None:
    state.registry_file.write_text('{"version": 1, "identities": {}, "superseded": []}')
    with pytest.raises(AuthorityError, match="version 1; this program reads version 2"):
        authority.issue("console", "operator")


def test_an_authority_whose_files_do_not_match_is_refused(
    authority: Authority, state: StateFolder
) -> None:
    authority.issue("console", "operator")
    (state.ca / "cert.pem").write_text("nonsense")
    with pytest.raises(AuthorityError, match="restore it from a backup"):
        authority.issue("console", "operator")


def test_an_authority_that_lost_its_key_is_not_replaced_by_another(
    authority: Authority, state: StateFolder
) -> None:
    authority.issue("console", "operator")
    (state.ca / "key.pem").unlink()
    certificate = (state.ca / "cert.pem").read_bytes()
    with pytest.raises(AuthorityError, match=r"key\.pem.*restore it from a backup"):
        Authority.create(state)
    with pytest.raises(AuthorityError, match=r"key\.pem"):
        authority.check()
    assert (state.ca / "cert.pem").read_bytes() == certificate


def test_a_list_of_identities_that_was_lost_readmits_nobody(
    authority: Authority, state: StateFolder
) -> None:
    authority.issue("thief", "operator")
    authority.revoke("thief")
    state.registry_file.unlink()
    for use in (lambda: Authority.create(state), authority.write_revocation_list, authority.check):
        with pytest.raises(AuthorityError, match="list of identities is missing; restore it"):
            use()
    assert not state.registry_file.exists()


@pytest.mark.parametrize("written", ["cert.pem", "../identities.json"])
def test_an_authority_whose_making_was_interrupted_is_made_at_the_next_start(
    tmp_path: Path, state: StateFolder, written: str
) -> None:
    other = StateFolder.create(tmp_path / "other")
    Authority.create(other)
    (state.ca / written).write_bytes((other.ca / written).read_bytes())
    Authority(state).check()
    authority = Authority.create(state)
    assert authority.problem(authority.issue("console", "operator")) is None


def test_a_damaged_registry_is_refused_and_left_alone(
    authority: Authority, state: StateFolder
) -> None:
    state.registry_file.write_text('{"version": 1, "identities"')
    with pytest.raises(AuthorityError, match=r"identities\.json"):
        authority.issue("console", "operator")
    assert state.registry_file.read_text() == '{"version": 1, "identities"'


def test_identities_of_another_authority_are_noticed(tmp_path: Path, authority: Authority) -> None:
    ours = authority.issue("console", "operator")
    other = Authority.create(StateFolder.create(tmp_path / "other")).issue("console", "operator")
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (ours.folder / name).write_bytes((other.folder / name).read_bytes())
    assert authority.problem(ours) == "another authority signed it"


def test_issuing_at_the_same_time_loses_nobody(authority: Authority) -> None:
    names = [f"part-{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: authority.issue(name, "consumer"), names))
    assert [identity.name for identity in authority.identities()] == sorted(names)


def test_a_missing_identity_says_how_to_issue_it(authority: Authority) -> None:
    with pytest.raises(IdentityError, match="nervus identity issue console"):
        authority.get("console")
