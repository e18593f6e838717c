"""Making the certificates of the local authority (P-256, X.509 v3); no files in here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_VALIDITY: Final = timedelta(days=3652)
PART_VALIDITY: Final = timedelta(days=365)
# A Pi without a battery clock may issue before its first time sync and be used after it.
BACKDATED: Final = timedelta(days=1)

Usage = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and the certificate that names it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """The key as unencrypted PKCS 8."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def key_der(self) -> bytes:
        """The key as SEC 1 DER, the form that small TLS stacks read without a PEM parser."""
        return self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


def create_authority(name: str, now: datetime) -> KeyPair:
    """Create a self-signed authority that may sign parts but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    builder = (
        _builder(subject, subject, key, now, CA_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return KeyPair(key, builder.sign(key, hashes.SHA256()))


def issue_certificate(
    authority: KeyPair, name: str, usage: Usage, hosts: Sequence[str], now: datetime
) -> KeyPair:
    """Create a key and a certificate signed by `authority`.

    Args:
        authority: Who signs.
        name: The common name; for clients also the alternative name.
        usage: Whether its holder connects (`client`) or is connected to (`server`).
        hosts: Host names and addresses a server answers under; empty for clients.
        now: The time of issue; valid from a day before it, for a year.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    purpose = (
        ExtendedKeyUsageOID.CLIENT_AUTH if usage == "client" else ExtendedKeyUsageOID.SERVER_AUTH
    )
    builder = (
        _builder(_common_name(name), issuer.subject, key, now, PART_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative_name(host) for host in (name, *hosts)]),
            critical=False,
        )
        .add_extension(_authority_key(issuer), critical=False)
    )
    return KeyPair(key, builder.sign(authority.key, hashes.SHA256()))


def revocation_list(authority: KeyPair, revoked: Mapping[int, datetime]) -> bytes:
    """Return a list of revoked certificates signed by `authority`, PEM.

    It holds for as long as the authority does, from its first day: a list that were out of date by
    its own dates, or by a clock gone wrong, would shut everybody out.

    Args:
        authority: Who signs, and had signed what is revoked.
        revoked: When each was revoked, by serial number.
    """
    issuer = authority.certificate
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(issuer.not_valid_before_utc)
        .next_update(issuer.not_valid_after_utc)
        .add_extension(x509.CRLNumber(len(revoked)), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    for serial, when in revoked.items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def read_key_pair(key_pem: bytes, certificate_pem: bytes) -> KeyPair:
    """Read a pair back from PEM.

    Raises:
        ValueError: One is not PEM, the key is not P-256, or they do not belong together.
    """
    key = serialization.load_pem_private_key(key_pem, password=None)
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not an elliptic-curve key")  # noqa: TRY004  one error for bad files
    if certificate.public_key() != key.public_key():
        raise ValueError("the key does not belong to the certificate")
    return KeyPair(key, certificate)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    validity: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
