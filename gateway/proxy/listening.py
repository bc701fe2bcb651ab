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
    """The TLS of one worker's listening socket; what was renewed counts for connections from the next look on.

    `context` is what the socket has for good. Whoever connects gets the present one from it, in the callback of the
    server name, which OpenSSL makes whether a name is sent or not.
    """

    def __init__(self, tls: ListenerTls, configuration: Configuration) -> None:
        """Read certificate, key and authorities.

        Raises:
            ConfigError: one of them cannot be read, or the key is another certificate's.
        """
        base = configuration.base
        self._certificate, self._key = base / tls.certificate, base / tls.key
        self._client_ca = None if tls.client_ca is None else base / tls.client_ca
        self._asked = _ASKED[tls.client_certificates]
        self._password = "" if tls.password is None else reveal(tls.password, base=base, environ=os.environ)
        self.problem: str | None = None
        try:
            self._seen = self._state()
            self.context = self._loaded()
            self._present = self._loaded()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"gateway.tls: {self._said(error)}") from error
        self.context.sni_callback = self._choose

    def look(self) -> None:
        """Take up what was renewed; what cannot be read leaves the last good one in force, as a `problem`."""
        try:
            seen = self._state()
            if seen == self._seen:
                return
            self._present = self._loaded()
        except (OSError, ValueError) as error:
            self.problem = f"the listener's TLS: {self._said(error)}"
            return
        self._seen, self.problem = seen, None

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._present

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.verify_mode = self._asked
        # the password is given always: without one OpenSSL would ask the terminal
        context.load_cert_chain(self._certificate, self._key, password=lambda: self._password)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            # a resumed session shows no certificate again, and would outlive the authority that it was checked by
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context

    def _files(self) -> list[Path]:
        return [self._certificate, self._key, *([] if self._client_ca is None else [self._client_ca])]

    def _state(self) -> tuple[int, ...]:
        states = [path.stat() for path in self._files()]
        return tuple(each for state in states for each in (state.st_mtime_ns, state.st_ino, state.st_size))

    def _said(self, error: OSError | ValueError) -> str:
        if isinstance(error, FileNotFoundError):
            return f"{', '.join(str(path) for path in self._files() if not path.exists())}: no such file"
        return f"{', '.join(path.name for path in self._files())}: {error}"
