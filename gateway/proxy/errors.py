"""What can go wrong on the data plane, in the one error shape: code, status, one sentence of advice."""

# ruff: noqa: N818 - an error is named after the state that the caller meets, not after being an error
from __future__ import annotations

from config.errors import AnswerableError


class BadRequest(AnswerableError):
    """The caller's bytes are no request that we could forward unchanged."""

    code = "request_malformed"
    status = 400
    advice = "Send a well-formed HTTP/1.1 request; see the message for what was wrong."


class Unauthenticated(AnswerableError):
    """No credential, or one that proves nothing."""

    code = "credential_missing"
    status = 401
    advice = "Send an application key or a token as `Authorization: Bearer …`."


class Forbidden(AnswerableError):
    """Who calls is known, and may not call this route; `challenge` is what it lacks, as RFC 6750 §3 spells it."""

    code = "scope_missing"
    status = 403
    advice = "Ask whoever runs this gateway for a key or token with the scopes that the message names."

    def __init__(self, message: str, *, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class TooMany(AnswerableError):
    """An application calls more often than it may; `policy` and `state` are header values (RateLimit fields)."""

    code = "rate_limited"
    status = 429
    advice = "Wait for Retry-After seconds, or have the limit raised under callers.limits."

    def __init__(self, message: str, *, code: str, retry_after_s: int, policy: str, state: str) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s
        self.policy = policy
        self.state = state


class RouteUnknown(AnswerableError):
    """No route has a prefix that the path begins with."""

    code = "route_unknown"
    status = 404
    advice = "Compare the path with the prefixes under `routes` in the configuration."


class RequestSlow(AnswerableError):
    """The request did not arrive whole in its time."""

    code = "request_timeout"
    status = 408
    advice = "Send the request faster, or raise gateway.body_timeout_s."


class BodyTooLarge(AnswerableError):
    """The request's body is longer than the limit."""

    code = "body_too_large"
    status = 413
    advice = "Send a smaller body, or raise gateway.body_bytes_max."


class ExpectationFailed(AnswerableError):
    """An `Expect` header asks for something else than 100-continue."""

    code = "expectation_failed"
    status = 417
    advice = "Leave the Expect header out, or send `Expect: 100-continue`."


class HeadTooLarge(AnswerableError):
    """Request line and headers are longer than the limit."""

    code = "headers_too_large"
    status = 431
    advice = "Send fewer or shorter headers, or raise gateway.header_bytes_max."


class NotForwarded(AnswerableError):
    """A protocol that this gateway does not record, and so does not let past: WebSocket, gRPC, CONNECT, upgrades."""

    code = "protocol_not_supported"
    status = 501
    advice = "Call the model by plain HTTP/1.1 requests; answers may be streamed."


class Busy(AnswerableError):
    """A bound of this worker is reached: calls under way, or bytes held in memory."""

    code = "gateway_busy"
    status = 503
    advice = "Try again after the number of seconds in Retry-After; if it goes on, add workers."


class RouteBusy(Busy):
    """As many calls as may be are under way on a route, and no place became free in time."""

    code = "route_busy"
    advice = "Try again after the number of seconds in Retry-After, or raise the route's concurrency."


class UpstreamOpen(AnswerableError):
    """No endpoint of the route takes calls: their breakers are open, or their health checks fail."""

    code = "upstream_open"
    status = 503
    advice = "Try again after the number of seconds in Retry-After; meanwhile look at the model endpoints."

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamFailed(AnswerableError):
    """The model endpoint cannot be reached, broke off or spoke no HTTP; `sent`: it may have run the call."""

    code = "upstream_unreachable"
    status = 502
    advice = "Check that the model endpoint of this route runs and answers HTTP/1.1."

    def __init__(self, message: str, *, code: str | None = None, sent: bool = False) -> None:
        super().__init__(message, code=code)
        self.sent = sent


class UpstreamSlow(AnswerableError):
    """The model endpoint did not answer within the route's timeouts."""

    code = "upstream_timeout"
    status = 504
    advice = "Look at the model endpoint's load, or raise the route's timeouts."


class KeyReused(AnswerableError):
    """An `Idempotency-Key` came before with another body, method or target."""

    code = "idempotency_key_reused"
    status = 422
    advice = "Send a fresh key with each new request; repeat a key only with the very same bytes."


class NotRepeated(AnswerableError):
    """A repeat of a call whose answer cannot be given: it is still under way, or nothing is left to repeat.

    `decision` is the first call's Decision-Id; with `retry_after_s` it is worth asking again.
    """

    code = "idempotency_outcome_unknown"
    status = 409
    advice = "Look the decision up by its Decision-Id; send a fresh key if the model may run again."

    def __init__(
        self,
        message: str,
        *,
        code: str,
        decision: str,
        retry_after_s: int | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message, code=code, advice=advice)
        self.decision = decision
        self.retry_after_s = retry_after_s


class RepeatsUnavailable(AnswerableError):
    """What is known of keys cannot be read or written now; only calls that carry one are refused."""

    code = "idempotency_unavailable"
    status = 503
    advice = "Look at DATA/idempotency (disk, rights) and the gateway's log; calls without a key are served."
