"""RFC 3161 time stamps over checkpoints of the log of logs: what is asked for, and whether a token holds.

The message that is stamped is the checkpoint's text (three lines with their newlines, as the log signed it), with
SHA-256; so ``openssl ts -verify -data <text>`` checks a token too. Kept is the authority's whole answer, as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.x509 import Certificate, load_pem_x509_certificates
from rfc3161_client import (
    HashAlgorithm,
    TimeStampRequest,
    TimestampRequestBuilder,
    VerifierBuilder,
    decode_timestamp_response,
)
from rfc3161_client.errors import VerificationError

from storage import notes
from storage.errors import Unverifiable

ANSWER_BYTES_MAX = 256 * 1024  # a token with its authority's whole chain has some 10 kB
_CERTIFICATES = 0xA0  # [0] IMPLICIT in SignedData
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def request(note: bytes) -> TimeStampRequest:
    """What an authority is asked: to stamp the text of this checkpoint, with a nonce and its certificates."""
    text = notes.parse(note).text.encode()
    return TimestampRequestBuilder().data(text).hash_algorithm(HashAlgorithm.SHA256).build()


def stated(answer: bytes, asked: TimeStampRequest | None = None) -> int:
    """The time (Unix seconds) that an answer states; nobody's word yet.

    Raises:
        Unverifiable: not an answer that grants a token, or not to what was `asked`.
    """
    try:
        response = decode_timestamp_response(_sorted(answer))
        info = response.tst_info
        if int(response.status) not in (0, 1):
            raise Unverifiable(f"the authority refused: status {int(response.status)} {response.status_string}")
        if asked is not None and (
            info.nonce != asked.nonce or info.message_imprint.message != asked.message_imprint.message
        ):
            raise Unverifiable("the authority answered to another question")
        return int((info.gen_time - _EPOCH).total_seconds())
    except (ValueError, TypeError, IndexError) as error:
        raise Unverifiable(f"not a time stamp: {error}") from error


def verify(answer: bytes, note: bytes, roots: Sequence[Certificate]) -> int:
    """When (Unix seconds) an authority under one of `roots` had this checkpoint's text before it.

    Raises:
        Unverifiable: by no such authority, or over another text.
    """
    text = notes.parse(note).text.encode()
    problem: Exception | None = None
    for root in roots:
        builder = VerifierBuilder(roots=[])
        try:
            builder.add_root_certificate(root).build().verify_message(decode_timestamp_response(_sorted(answer)), text)
            return stated(answer)
        except (VerificationError, ValueError, TypeError, IndexError) as error:
            problem = error
    raise Unverifiable(f"the time stamp does not verify: {problem or 'no root certificate is trusted'}")


def certificates(pem: str) -> tuple[Certificate, ...]:
    """The certificates in a PEM text.

    Raises:
        Unverifiable: there is none.
    """
    try:
        return tuple(load_pem_x509_certificates(pem.encode()))
    except ValueError as error:
        raise Unverifiable(f"no certificates: {error}") from error


# --- the order of certificates ----------------------------------------------------------------------------------------


def _sorted(answer: bytes) -> bytes:
    """The answer with the certificates beside its token in the order that DER asks of a SET OF.

    Authorities built on OpenSSL send them in whatever order they have them, which the parser refuses. They are covered
    by no signature (RFC 5652 section 5.4), so their order says nothing. Raises ValueError for what is no answer.
    """
    whole = _Element.at(answer, 0)
    _, *tokens = whole.members(answer)
    if not tokens:
        return answer
    content = tokens[0].members(answer)[1]  # ContentInfo: type, [0] SignedData
    signed = content.members(answer)[0].members(answer)
    for one in signed:
        if one.tag == _CERTIFICATES:
            inside = sorted(answer[member.start : member.end] for member in one.members(answer))
            return answer[: one.content] + b"".join(inside) + answer[one.end :]
    return answer


@dataclass(frozen=True, slots=True)
class _Element:
    """Where a DER element stands: its tag, its beginning, the beginning of its content, its end."""

    tag: int
    start: int
    content: int
    end: int

    @classmethod
    def at(cls, data: bytes, start: int) -> _Element:
        """The element that begins at `start`; ValueError where there is none."""
        try:
            tag, length, content = data[start], data[start + 1], start + 2
            if length & 0x80:
                count = length & 0x7F
                length, content = int.from_bytes(data[content : content + count], "big"), content + count
        except IndexError:
            raise ValueError("cut off") from None
        if content + length > len(data):
            raise ValueError("cut off")
        return cls(tag, start, content, content + length)

    def members(self, data: bytes) -> list[_Element]:
        """The elements inside."""
        found, at = [], self.content
        while at < self.end:
            found.append(_Element.at(data, at))
            at = found[-1].end
        return found
