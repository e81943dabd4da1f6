"""Certificates for tests, made once a run."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import grpc


class Certificates(NamedTuple):
    """One that signs itself, for `localhost`, used by both sides."""

    certificate: bytes
    key: bytes

    def server(self, *, ask: bool = False) -> grpc.ServerCredentials:
        """Return a server's credentials; `ask` for a client's certificate."""
        if ask:
            return grpc.ssl_server_credentials([(self.key, self.certificate)], self.certificate, True)
        return grpc.ssl_server_credentials([(self.key, self.certificate)])

    def client(self, *, show: bool = False) -> grpc.ChannelCredentials:
        """Return a client's credentials; `show` a certificate of its own."""
        own = (self.key, self.certificate) if show else (None, None)
        return grpc.ssl_channel_credentials(self.certificate, *own)


@functools.cache
def certificates() -> Certificates:
    """Make them."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        return Certificates(certificate.read_bytes(), key.read_bytes())
