"""Who the gateway is to its callers: the listener's certificate, and whom it asks for one (RFC 8446, RFC 9325)."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from config.errors import ConfigError
from config.load import Configuration
from config.secrets import reveal
from config.settings import ListenerTls

_ASKED = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Listener:
    """The TLS of one worker's listening socket; a certificate that was renewed counts from the next look on."""

    def __init__(self, tls: ListenerTls, configuration: Configuration) -> None:
        """Read certificate, key and authorities.

        Raises:
            ConfigError: one of them cannot be read, or the key is another certificate's.
        """
        base = configuration.base
        self._certificate, self._key = base / tls.certificate, base / tls.key
        self._password = "" if tls.password is None else reveal(tls.password, base=base, environ=os.environ)
        self.problem: str | None = None
        self.context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.verify_mode = _ASKED[tls.client_certificates]
        try:
            self._load()
            if tls.client_ca is not None:
                context.load_verify_locations(base / tls.client_ca)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"gateway.tls: {_said(error, self._certificate, self._key)}") from error
        self._seen = self._state()

    def look(self) -> None:
        """Take up a renewed certificate; one that cannot be read leaves the last good one in force, as a `problem`."""
        try:
            seen = self._state()
            if seen == self._seen:
                return
            self._load()
        except (OSError, ValueError) as error:
            self.problem = f"the listener's certificate: {_said(error, self._certificate, self._key)}"
            return
        self._seen, self.problem = seen, None

    def _load(self) -> None:
        # a trial first: a context that took a certificate and then refuses its key would keep the one without the other
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
            # the password is given always: without one OpenSSL would ask the terminal
            context.load_cert_chain(self._certificate, self._key, password=lambda: self._password)

    def _state(self) -> tuple[int, ...]:
        certificate, key = self._certificate.stat(), self._key.stat()
        return certificate.st_mtime_ns, certificate.st_ino, key.st_mtime_ns, key.st_ino


def _said(error: OSError | ValueError, certificate: Path, key: Path) -> str:
    if isinstance(error, FileNotFoundError):
        missing = [str(path) for path in (certificate, key) if not path.exists()]
        return f"{', '.join(missing) or 'client_ca'}: no such file"
    return f"{certificate.name} and {key.name}: {error}"
