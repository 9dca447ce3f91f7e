"""The address: what it listens on, which host names are its own, and what is refused before any work."""

import pytest

from sonogravity.common import folders
from sonogravity.common.messages import InputError
from sonogravity.live.gate import Gate, open_gate, tls_context

SECRET = folders.ROOT / "tests" / "fixtures" / "live"
GATE = Gate("127.0.0.1", 8000, "secret", is_local=True)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000"])
def test_own_hosts_are_admitted(host):
    assert GATE.admits_host(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example:8000",
        "127.0.0.1:8001",
        "127.0.0.1.evil:8000",
        "a@127.0.0.1:8000",
        "[::1",
        "0.0.0.0:8000",
    ],
)
def test_other_hosts_are_not(host):
    assert not GATE.admits_host(host)


def test_on_all_addresses_any_address_in_numbers_is_own_and_no_foreign_name():
    gate = Gate("0.0.0.0", 8000, "secret", is_local=False)
    assert gate.admits_host("192.0.2.7:8000") and gate.admits_host("localhost:8000")
    assert not gate.admits_host("evil.example:8000") and not gate.admits_host("192.0.2.7:80")


def test_a_named_host_admits_its_name():
    assert Gate("scanner.local", 8000, "secret", is_local=False).admits_host("Scanner.local:8000")


def test_tokens_are_compared_whole():
    assert GATE.admits_token("secret")
    for token in ("", "secre", "secrets", "Secret", "s\udcff"):
        assert not GATE.admits_token(token)


def test_each_gate_has_a_port_and_a_token_of_its_own():
    (first, one), (second, two) = open_gate("127.0.0.1", 0), open_gate("127.0.0.1", 0)
    with one, two:
        assert first.port != second.port and first.token != second.token and len(first.token) >= 32
        assert first.is_local and first.url == f"http://127.0.0.1:{first.port}/?token={first.token}"
        with pytest.raises(InputError, match=rf"--port {first.port}: cannot listen there .*in use"):
            open_gate("127.0.0.1", first.port)


def test_a_host_of_all_addresses_is_not_local():
    gate, listening = open_gate("0.0.0.0", 0)
    with listening:
        assert not gate.is_local and "0.0.0.0" not in gate.url


def test_a_host_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="no such address"):
        open_gate("no such host", 0)
    with pytest.raises(InputError, match="cannot listen there"):
        open_gate("192.0.2.7", 0)


def test_certificate_and_key_belong_together():
    assert tls_context(None, None) is None
    assert tls_context(SECRET / "certificate.pem", SECRET / "key.pem") is not None
    for certificate, key in ((SECRET / "certificate.pem", None), (None, SECRET / "key.pem")):
        with pytest.raises(InputError, match="belong together"):
            tls_context(certificate, key)
    for certificate, key in ((SECRET / "key.pem", SECRET / "key.pem"), (SECRET / "missing.pem", SECRET / "key.pem")):
        with pytest.raises(InputError, match="cannot be used"):
            tls_context(certificate, key)
