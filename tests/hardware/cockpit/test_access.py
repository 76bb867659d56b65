import ssl
import stat

import pytest

from robot_rl.hardware.cockpit import access


def test_only_loopback_addresses_are_local():
    assert all(access.is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"))
    assert not any(access.is_local(host) for host in ("0.0.0.0", "::", "192.168.1.5", "robot.example", ""))


def test_a_token_is_needed_beyond_this_computer():
    assert access.choose_token("127.0.0.1", "") == ""
    random = access.choose_token("0.0.0.0", "")
    assert len(random) >= 20
    assert random != access.choose_token("0.0.0.0", "")
    assert access.choose_token("127.0.0.1", "x" * 16) == "x" * 16
    with pytest.raises(access.AccessError, match="16 or more"):
        access.choose_token("0.0.0.0", "1234")


def test_only_the_right_token_admits():
    assert access.admits("", None)
    assert access.admits("secret", "secret")
    for given in (None, "", "Secret", "secret2", "sécret"):
        assert not access.admits("secret", given)


def test_a_foreign_name_for_this_computer_is_refused():
    assert all(access.knows_host(True, host) for host in ("localhost:8765", "127.0.0.1:8765", "[::1]:8765"))
    assert not access.knows_host(True, "evil.example:8765")
    assert access.knows_host(False, "robot.local:8765")


def test_only_our_own_page_may_open_a_socket():
    assert access.same_origin("http://localhost:8765", "http", "localhost:8765")
    for origin in (None, "null", "http://evil.example", "https://localhost:8765", "http://localhost:9000"):
        assert not access.same_origin(origin, "http", "localhost:8765")


def test_a_certificate_is_kept_until_a_host_is_missing(tmp_path):
    context, first = access.certificate(tmp_path / "keys", ["192.0.2.7", "robot.local"])
    assert isinstance(context, ssl.SSLContext)
    file = tmp_path / "keys" / "certificate.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert access.certificate(tmp_path / "keys", ["robot.local"])[1] == first
    assert access.certificate(tmp_path / "keys", ["192.0.2.8"])[1] != first
    file.write_text("no certificate")
    assert len(access.certificate(tmp_path / "keys", [])[1].split(":")) == 32
