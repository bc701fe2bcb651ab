"""`answerable verify`: what ClickHouse holds, by storage/audit.py; then what the journal holds beyond it.

Blocking.
"""

from __future__ import annotations

import time
from dataclasses import replace

from gateway.keeper.feed import start_of
from gateway.keeper.parts import Parts
from gateway.keeper.tail import Shelf
from gateway.keeper.threads import Tell
from storage.audit import audit
from storage.errors import JournalError
from storage.reading import SegmentTail
from storage.trust import CLAIM as AUTHENTICITY
from storage.trust import TrustPolicy
from storage.verify import Claim, Report, Verdict
from storage.walk import Progress

CLAIM = "journal"


def verify(parts: Parts, tell: Tell, trust: TrustPolicy | None = None) -> Report:
    """Every claim about ClickHouse and the journals of this host.

    `trust`: the keys that whoever asks brought; without them it is told, and not counted, that authenticity is UNKNOWN.

    Raises:
        StorageUnavailable: ClickHouse does not answer: nothing can be told.
    """
    keyring = parts.keyring
    done: dict[str, int] = {}

    def told(progress: Progress) -> None:
        done[progress.origin] = progress.done
        tell({"entries": sum(done.values()), "origin": progress.origin})

    host_keys = {keyring.host.public_key().public_bytes_raw()}
    report = audit(
        parts.database,
        public=keyring.log.public_key().public_bytes_raw(),
        data=parts.configuration.data,
        host_keys=host_keys,
        progress=told,
        silent_ns=round(parts.configuration.settings.ledger.silent_s * 1e9),
        now_ns=time.time_ns(),
        trust=trust,
    )
    broken = {claim.origin for claim in report.broken if claim.name == CLAIM}
    damages = [
        claim
        for shelf in parts.library.shelves
        if shelf.origin not in broken and (claim := _unshipped(parts, shelf, host_keys)) is not None
    ]
    sound = tuple(
        claim
        for claim in report.claims
        if not (claim.name == CLAIM and claim.origin in {damage.origin for damage in damages})
    )
    untold = () if trust is not None else (_authenticity(parts),)
    return replace(report, claims=(*sound, *damages, *untold))


def _authenticity(parts: Parts) -> Claim:
    """Without keys of the verifier's own: those of this data directory vouch for themselves."""
    return Claim(
        name=AUTHENTICITY,
        verdict=Verdict.UNKNOWN,
        origin=parts.shipping.rounds.name,
        detail="keys of this host were used; bring your own with --trust policy.json",
        counts=False,
    )


def _unshipped(parts: Parts, shelf: Shelf, host_keys: set[bytes]) -> Claim | None:
    """The damage in what is durable and not shipped yet, which the database cannot be compared with."""
    shipped = parts.shipping.shipped_below(shelf.origin)
    tail = SegmentTail(shelf.directory, start_of(shelf.directory, shipped), host_keys=host_keys)
    next_seq: int | None = None
    try:
        for batch in tail.batches():
            next_seq = batch.first + batch.count
    except JournalError as error:
        return Claim(name=CLAIM, verdict=Verdict.FAIL, origin=shelf.origin, seq=next_seq, detail=error.message)
    finally:
        tail.close()
    return None
