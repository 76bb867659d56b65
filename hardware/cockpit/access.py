"""Who may open the cockpit: this computer alone, or whoever holds the token, over HTTPS, from our own page."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

COOKIE = "cockpit_token"
SHORTEST = 16
"""Characters of a token that a person chooses."""

_VALID = timedelta(days=397)  # the longest that browsers take
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class AccessError(ValueError):
    """The cockpit cannot be opened as asked; the message says what to change."""


def is_local(host: str) -> bool:
    """Whether an address to listen at is reached from this computer alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, token: str) -> str:
    """The token to ask for: the given one, else a random one; none is needed on this computer alone.

    Raises:
        AccessError: the given token is too short to withstand guessing.
    """
    if token and len(token) < SHORTEST:
        raise AccessError(f"web.token: expected {SHORTEST} or more characters, got {len(token)}; none: a random one")
    return token or ("" if is_local(host) else secrets.token_urlsafe(16))


def admits(token: str, given: str | None) -> bool:
    """Whether a token that somebody gives is the right one."""
    return not token or hmac.compare_digest(token.encode(), (given or "").encode())


def knows_host(local: bool, host: str) -> bool:
    """Whether a request names a host that we serve, which another site that resolves to us (DNS rebinding) does not."""
    return not local or (urlsplit(f"//{host}").hostname or "") in _LOOPBACK


def same_origin(origin: str | None, scheme: str, host: str) -> bool:
    """Whether a web socket is opened by our own page; every browser says from where."""
    return origin is not None and origin.lower() == f"{scheme}://{host}".lower()


def addresses() -> list[str]:
    """Addresses of this computer on its networks, the one that leads outside first."""
    found: list[str] = []
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((outside, 9))  # sends nothing, but chooses the interface
                found.append(str(probe.getsockname()[0]))
            except OSError:
                continue
    return found


def certificate(folder: Path, hosts: list[str]) -> tuple[ssl.SSLContext, str]:
    """A server context with a self-signed certificate for `hosts`, and its SHA-256 fingerprint.

    It stays in `folder`, so that a browser asks once; it is made anew when a host is missing or it expires.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "certificate.pem"
    now = datetime.now(UTC)
    names = [_name(host) for host in dict.fromkeys([*hosts, *sorted(_LOOPBACK), socket.gethostname()])]
    present = None
    if file.is_file():
        try:
            present = x509.load_pem_x509_certificate(file.read_bytes())
            covered = set(present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
            if not set(names) <= covered or present.not_valid_after_utc < now + timedelta(days=7):
                present = None
        except (ValueError, x509.ExtensionNotFound):
            present = None
    if present is None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "robot_rl cockpit")])
        present = (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + _VALID - timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        beside = file.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(present.public_bytes(encoding) + private)
        beside.replace(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(file)
    return context, present.fingerprint(hashes.SHA256()).hex(":").upper()


def _name(host: str):  # type: ignore[no-untyped-def]
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
