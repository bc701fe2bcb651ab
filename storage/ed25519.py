"""Ed25519 as verifiers who share no library agree on it (RFC 8032 section 5.1.7; README.md, "Evidence bundles"). Pure.

OpenSSL refuses S ≥ L and compares R byte by byte, so of R and S it takes one spelling; of a public key it takes others.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from storage.errors import Unverifiable

_P: Final = 2**255 - 19
_SIGN: Final = 1 << 255


def verify(public: bytes, signature: bytes, message: bytes, *, said: str) -> None:
    """True on return: `signature` is that of `message` under `public`, and `public` the one spelling of its point.

    Raises:
        Unverifiable: it is not; `said` is the message.
    """
    if not _is_canonical(public):
        raise Unverifiable(said)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Unverifiable(said) from error


def _is_canonical(public: bytes) -> bool:
    """Whether y is below p, and no sign stands on x = 0 (which y = 1 and y = p - 1 have)."""
    number = int.from_bytes(public, "little")
    y = number & (_SIGN - 1)
    return y < _P and not (number & _SIGN and y in (1, _P - 1))
