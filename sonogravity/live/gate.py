"""Who may connect to the live view: the address that it listens on, and the checks of token, Host and Origin.

A server on 127.0.0.1 can be reached by every web page that the user has open. The checks keep those out.
"""

import hmac
import ipaddress
import secrets
import socket
import ssl
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from sonogravity.common.messages import InputError, first_line

LOOPBACK = "127.0.0.1"
LOCAL_NAMES = ("localhost", LOOPBACK, "::1")
BACKLOG = 128  # connections that wait to be accepted
NOWHERE = ("192.0.2.1", 9)  # an address for documentation (RFC 5737); nothing is sent to it


@dataclass(frozen=True)
class Gate:
    """The address and the token of a live view. host: as the user gave it. is_local: only this computer reaches it."""

    host: str
    port: int
    token: str
    is_local: bool
    encrypted: bool = False

    @property
    def scheme(self):
        """Return http or https."""
        return "https" if self.encrypted else "http"

    @property
    def url(self):
        """Return the address to open, with the token."""
        host = outward_address() if _is_any(self.host) else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{self.port}/?token={self.token}"

    def admits_host(self, header):
        """Return whether a request's Host header names this server.

        A foreign page that has made its own name point to this computer sends that name. If the server listens on all
        addresses of the computer, any address in numbers is one of them, because a name is what such a page needs.
        """
        host, port = _split(header)
        if host is None or port not in (None, self.port):
            return False
        return host in (*LOCAL_NAMES, self.host.lower()) or (_is_any(self.host) and _is_own_name(host))

    def admits_origin(self, origin, host):
        """Return whether a request comes from our own page, or from a client that is no browser (no Origin)."""
        return origin is None or origin.lower() == f"{self.scheme}://{(host or '').lower()}"

    def admits_token(self, token):
        """Return whether the token is ours, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(token.encode(errors="surrogateescape"), self.token.encode())


def _split(header):
    """Return (host in small letters, port or None) of a Host header; (None, None) if it is none."""
    try:
        parts = urlsplit(f"//{header or ''}")
        return (None, None) if parts.username is not None or parts.path else (parts.hostname, parts.port)
    except ValueError:
        return None, None


def _is_any(host):
    return host in ("0.0.0.0", "::", "")


def _is_own_name(host):
    """Return whether a host is an address in numbers, or the name of this computer."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        name = socket.gethostname().lower()
        return host in (name, f"{name}.local")
    return True


def outward_address():
    """Return the address under which other computers see this one, else its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(NOWHERE)  # chooses a route; a datagram socket sends nothing yet
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


def open_gate(host, port, encrypted=False):
    """Return the Gate and the socket that listens there. port: 0 for a free one.

    Raise InputError if the address cannot be used. The socket listens from now on, so that another program cannot take
    the port while the model is opened.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InputError(f"--host {host}: no such address ({first_line(error)}); leave it out for {LOOPBACK}") from None
    family, kind, _, _, address = found[0]
    listening = socket.socket(family, kind)
    try:
        if sys.platform != "win32":  # there the option would let two programs share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}); give another --port, or "
            "leave it out for a free one"
        ) from None
    is_local = ipaddress.ip_address(address[0].split("%")[0]).is_loopback
    return Gate(host, listening.getsockname()[1], secrets.token_urlsafe(24), is_local, encrypted), listening


def tls_context(certificate, key):
    """Return the SSLContext of a certificate and its key, None without both. Raise InputError if they do not serve."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InputError("--certificate and --key belong together; give both, or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # an encrypted key is refused, not asked about
    except (OSError, ValueError) as error:
        raise InputError(
            f"--certificate {certificate} --key {key}: cannot be used ({first_line(error)}); give a certificate and "
            "its key without a password, both in PEM format"
        ) from None
    return context
