"""What stands between a client and a server on real networks: an HTTP proxy, and a TLS end with a CA of its own."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.proxy import closing, read_head


@contextmanager
def http_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that forwards plain requests and makes tunnels (CONNECT): its URL, and the first lines that it got."""
    lines: list[str] = []

    def serve(client: socket.socket) -> None:
        head, rest = read_head(client)
        method, where, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        lines.append(f"{method} {where}")
        if method == "CONNECT":
            host, _, port = where.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=60) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _join(client, server)
            return
        parts = urlsplit(where)
        path = where.partition(parts.netloc)[2]
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=60) as server:
            server.sendall(closing(head.replace(where.encode(), path.encode(), 1)) + rest)
            _join(client, server)

    with _listening(serve) as port:
        yield f"http://127.0.0.1:{port}", lines


@contextmanager
def tls_end(endpoint: str, directory: Path) -> Iterator[tuple[str, Path]]:
    """A TLS server in front of `endpoint` whose certificate is of a CA of ours: its URL, and the CA's file."""
    ca, chain = _make_certificates(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    address = urlsplit(endpoint)

    def serve(client: socket.socket) -> None:
        with (
            context.wrap_socket(client, server_side=True) as plain,
            socket.create_connection((address.hostname, address.port), timeout=60) as server,
        ):
            head, rest = read_head(plain)
            server.sendall(closing(head) + rest)
            _join(plain, server)

    with _listening(serve) as port:
        yield f"https://127.0.0.1:{port}", ca


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port, each connection to which is served in a thread of its own, until the block ends."""

    def run(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            serve(client)

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                threading.Thread(target=run, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass on what either says until the server has ended."""
    threading.Thread(target=_pump, args=(one, other), daemon=True).start()
    _pump(other, one)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(256 * 1024):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _make_certificates(directory: Path) -> tuple[Path, Path]:
    """Files: the CA's certificate; a key and certificate for 127.0.0.1 that the CA has signed."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = _name("volback test CA"), _name("127.0.0.1")
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = _builder(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    ca = authority.add_extension(usage, True).sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = _builder(name, ca_name, key).add_extension(names, False).sign(ca_key, hashes.SHA256())
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "ca.pem").write_bytes(ca.public_bytes(pem))
    (directory / "server.pem").write_bytes(
        key.private_bytes(pem, private, serialization.NoEncryption()) + leaf.public_bytes(pem)
    )
    return directory / "ca.pem", directory / "server.pem"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
