"""What an `Idempotency-Key` means for a call: which key, which outcome is kept, what a repeat is told (pure).

The rules are those of draft-ietf-httpapi-idempotency-key-header-07 §2, read beside what Stripe documents: an outcome is
kept from where the model may have run, whatever its status. What certainly never ran leaves the key free: refusals
before admission, a model endpoint that could not be connected to, and the two statuses by which it says so itself.
A key whose outcome is not known is never free again before it expires: the model is not run twice in silence.
"""

from __future__ import annotations

import re

from gateway.proxy.errors import BadRequest, KeyReused, NotRepeated
from gateway.proxy.headers import RawHeaders, lowered
from storage.firsts import ANSWER_BYTES_MAX, First

HEADER = b"idempotency-key"
KEY_CHARS_MAX = 255  # Stripe's bound; a UUID has 36
IN_FLIGHT_RETRY_S = 1
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110 §9.2.2
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 §9.2.1: a repeat of these needs no key
# failures in which no byte of the request was written: a repeat, or another replica, may have it, whatever its method
NEVER_SENT = frozenset({"upstream_unreachable", "upstream_tls", "upstream_connect_timeout", "upstream_gone"})

# RFC 8941 §3.3.3: a string; beside it what clients send in fact: a bare token, a UUID, base64
_STRING = re.compile(rb'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~:/=@-]+")
_ESCAPED = re.compile(rb"\\(.)")


def key_in(headers: RawHeaders, *, required: bool) -> bytes | None:
    """The key that a request carries, unquoted; None if it carries none.

    Raises:
        BadRequest: it stands there twice, is no key, or is missing though the route requires it.
    """
    found: bytes | None = None
    for name, value in headers:
        if lowered(name) != HEADER:
            continue
        if found is not None:
            raise _malformed("stands there twice")
        found = _unquoted(value.strip(b" \t"))
    if found is None and required:
        raise BadRequest(
            "this route requires an Idempotency-Key header",
            code="idempotency_key_missing",
            advice="Send a fresh UUID as Idempotency-Key with each call, and the same one with its repeats.",
        )
    return found


def _unquoted(value: bytes) -> bytes:
    string = _STRING.fullmatch(value)
    key = _ESCAPED.sub(rb"\1", string[1]) if string else value
    if string is None and not _BARE.fullmatch(value):
        raise _malformed("is neither a quoted string nor a token")
    if not 0 < len(key) <= KEY_CHARS_MAX:
        raise _malformed(f"is not of 1 to {KEY_CHARS_MAX} characters")
    return key


def _malformed(fault: str) -> BadRequest:
    return BadRequest(
        f"the header Idempotency-Key {fault}",
        code="idempotency_key_malformed",
        advice='Send one key of up to 255 characters, such as a UUID, with or without "quotes".',
    )


def is_kept(status: int, headers: RawHeaders) -> bool:
    """Whether a model's answer is the outcome; not if it says that it did not take the call and invites another.

    429 (RFC 6585 §4) says so by itself, 503 (RFC 9110 §15.6.4) only with Retry-After: some proxies give it for a
    connection that broke in the middle.
    """
    if status == 503:
        return not any(lowered(name) == b"retry-after" for name, _ in headers)
    return status != 429


def judge(first: First, *, now_ns: int) -> First:
    """The first call, if its answer can be repeated.

    Raises:
        KeyReused: 422, it asked something else.
        NotRepeated: 409, with its Decision-Id: it is under way, or there is no answer to repeat.
    """
    if first.same is False:
        raise KeyReused("this Idempotency-Key was used for another request")
    if first.state == "kept":
        return first
    if first.state == "running" and now_ns < first.lease_ns:
        raise NotRepeated(
            "the first call with this Idempotency-Key is still under way",
            code="idempotency_in_flight",
            decision=first.decision,
            retry_after_s=IN_FLIGHT_RETRY_S,
            advice="Send it again after the number of seconds in Retry-After.",
        )
    code, text = _UNREPEATABLE["lost" if first.state == "running" else first.state]
    raise NotRepeated(text, code=code, decision=first.decision)


_UNREPEATABLE = {
    "lost": (
        "idempotency_outcome_unknown",
        "the gateway ended while the first call with this Idempotency-Key was under way; the model may have run",
    ),
    "too_large": (
        "idempotency_answer_too_large",
        f"the answer to the first call was longer than {ANSWER_BYTES_MAX} bytes and is not repeated",
    ),
    "incomplete": (
        "idempotency_answer_incomplete",
        "the answer to the first call broke off and is not repeated; the model has run",
    ),
    "unkept": (
        "idempotency_answer_not_kept",
        "the answer to the first call could not be kept; the model may have run",
    ),
    "erased": ("idempotency_answer_erased", "the answer to the first call was erased"),
}
