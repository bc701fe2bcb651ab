"""A request's head and body under their limits: what is refused before anything is admitted."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from gateway.proxy.errors import (
    BadRequest,
    BodyTooLarge,
    ExpectationFailed,
    HeadTooLarge,
    NotForwarded,
    RequestSlow,
)
from gateway.proxy.inbound import Inbound, Whole
from gateway.proxy.limits import Budget

# the parser reads RTSP and ICE too, and takes their requests for HTTP/1.0
NOT_HTTP = frozenset(
    {
        *("DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER"),
        *("REDIRECT", "RECORD", "FLUSH", "SOURCE", "PRI"),
    }
)
HOST = re.compile(r"[0-9A-Za-z._~!$&'()*+,;=%:\[\]-]*")  # RFC 9110 §7.2, which also lets it be empty
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one request may be: bytes of head and body, seconds for the body."""

    header_bytes_max: int
    body_bytes_max: int
    body_timeout_s: float


class Intake:
    """Takes requests in for one worker."""

    def __init__(self, bounds: Bounds, budget: Budget) -> None:
        """Bodies are held in `budget`; who took one gives its bytes back."""
        self._bounds = bounds
        self._budget = budget

    def check_head(self, request: Inbound) -> None:
        """True on return: the head is one that this gateway forwards.

        Raises:
            HeadTooLarge, NotForwarded, BadRequest: what it says.
        """
        head = request.head
        count = len(head.path)
        for name, value in head.raw_headers:
            count += len(name) + len(value) + 4
        if count > self._bounds.header_bytes_max:
            raise HeadTooLarge(f"the request's head is longer than {self._bounds.header_bytes_max} bytes")
        if head.upgrade or head.method == "CONNECT":
            raise NotForwarded("this gateway does not switch protocols")
        if head.version.major != 1 or head.method in NOT_HTTP:
            raise NotForwarded("this gateway speaks HTTP/1.1 and HTTP/1.0")
        if head.headers.get("Content-Type", "").strip().lower().startswith("application/grpc"):
            raise NotForwarded("this gateway does not forward gRPC")
        coding = head.headers.get("Transfer-Encoding")
        if coding is not None and (coding.lower() != "chunked" or head.version.minor < 1):
            raise BadRequest("chunked is the only transfer coding, and HTTP/1.0 has none")  # RFC 9112 §6.1
        if not HOST.fullmatch(head.headers.get("Host", "")):
            raise BadRequest("the Host header is not a host and a port")

    def check_body(self, request: Inbound) -> None:
        """What the head says of the body; the caller is told to go on where it asks.

        Raises:
            BodyTooLarge, ExpectationFailed: what it says.
        """
        headers = request.head.headers
        declared = headers.get("Content-Length")
        most = self._bounds.body_bytes_max
        if declared is not None and int(declared) > most:
            raise BodyTooLarge(f"the body is longer than {most} bytes")
        expects = headers.get("Expect")
        if expects is not None:
            if any(each.lower() != "100-continue" for each in headers.getall("Expect")):
                raise ExpectationFailed("only 100-continue can be expected")
            if not request.stream.is_eof() and request.keeps_alive:
                request.interim(CONTINUE)

    def at_hand(self, request: Inbound) -> bytes | None:
        """The whole body where it came with the head; its bytes are held in the budget until given back.

        Raises:
            BodyTooLarge, Busy: there is no room for it.
        """
        if not request.stream.is_eof():
            return None
        most = self._bounds.body_bytes_max
        body = request.whole_body()
        if len(body) > most:
            raise BodyTooLarge(f"the body is longer than {most} bytes")
        self._budget.take(len(body))
        return body

    async def arriving(self, request: Inbound) -> bytes:
        """The whole body, held in the budget as `at_hand`.

        Raises:
            BodyTooLarge, Busy, RequestSlow, BadRequest: it will not be here.
        """
        most = self._bounds.body_bytes_max
        pieces: list[bytes] = []
        held = 0
        whole = False
        stream = request.stream
        assert not isinstance(stream, Whole), "its body is at hand"
        try:
            async with asyncio.timeout(self._bounds.body_timeout_s):
                while piece := await stream.readany():
                    self._budget.take(len(piece))
                    held += len(piece)
                    pieces.append(piece)
                    if held > most:
                        raise BodyTooLarge(f"the body is longer than {most} bytes")
            whole = True
            return b"".join(pieces)
        except TimeoutError as error:
            raise RequestSlow(f"the body did not arrive within {self._bounds.body_timeout_s:g} s") from error
        except (HttpProcessingError, RequestPayloadError) as error:
            raise BadRequest("the body's framing is malformed", code="body_malformed") from error
        except ConnectionError as error:
            raise BadRequest("the caller is gone", code="caller_gone") from error
        finally:
            if not whole:
                self._budget.give_back(held)
