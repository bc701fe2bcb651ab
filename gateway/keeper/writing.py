"""The keeper's own entries: drafted with what all of them share, sealed, appended, durable on return."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from storage.entries import SYSTEM_TENANT, Draft, Ref
from storage.journal import Appended, Journal
from storage.pressure import Level

ACTOR = "keeper"

Content = tuple[str, str, bytes]  # name, media type, plaintext


class Writer:
    """Writes into one journal on behalf of the keeper and of those that it hosts."""

    def __init__(self, journal: Journal, *, config: str) -> None:
        self._journal = journal
        self._config = config

    @property
    def origin(self) -> str:
        """The name of the own ledger."""
        return self._journal.origin

    @property
    def found(self) -> int:
        """How many entries the own ledger held before this process wrote its first."""
        return self._journal.found

    @property
    def is_pressed(self) -> bool:
        """Whether the disk is so full that nothing should be written which can be made again later."""
        return self._journal.pressure >= Level.SHED

    def roll(self, first_seq: int) -> None:
        """Close the own segment of that first sequence number, if it is still the one that is written."""
        self._journal.roll(first_seq)

    def draft(
        self,
        kind: str,
        *,
        tenant: str = SYSTEM_TENANT,
        actor: str = ACTOR,
        route: str | None = None,
        decision: str | None = None,
        prev: tuple[Ref, ...] = (),
        fields: Mapping[str, Any],
    ) -> Draft:
        """An entry of now, by the keeper unless `actor` says otherwise."""
        return Draft(
            kind=kind,
            tenant=tenant,
            actor=actor,
            id=self._journal.new_id(),
            ts_ns=time.time_ns(),
            config=self._config,
            route=route,
            decision=decision,
            prev=prev,
            fields=fields,
        )

    async def append(self, draft: Draft, contents: Sequence[Content] = ()) -> Appended:
        """Seal `contents` as parts of the entry and append it; true on return: entry and parts are durable.

        Raises:
            JournalStopped: the disk refused; nothing that was not acknowledged may be believed.
            EntryTooLarge: the entry or a part is over its limit.
        """
        if not contents:
            return await asyncio.shield(self._journal.append(draft))
        key = self._journal.new_key()
        sealed = [
            key.sealer.seal(name, media, plaintext, index) for index, (name, media, plaintext) in enumerate(contents)
        ]
        draft = replace(draft, parts=tuple(part for part, _ in sealed))
        # shielded: whoever gives up waiting must not take the entry's own future with them
        return await asyncio.shield(self._journal.append(draft, parts=[stored for _, stored in sealed], key=key))
