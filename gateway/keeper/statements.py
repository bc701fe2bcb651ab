"""What people state at the desk, as entries of the own journal: holds and approvals. Read back from the database."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from gateway.desk.context import Statement
from gateway.keeper.writing import Content, Writer
from storage import queries
from storage.clickhouse import Database
from storage.entries import Ref
from storage.errors import StorageUnavailable
from storage.keys import Keyring
from storage.queries import EntryRow

PATIENCE_S: Final = 5.0  # for what an earlier process wrote to arrive in the database
LOOK_EVERY_S: Final = 0.1
KINDS: Final = ("hold", "approval")


class Statements:
    """Writes statements and reads them all; the ledger is the only state, so nothing can differ from it.

    What this process wrote is remembered until the database shows it. What an earlier process wrote may still be on
    its way there when this one starts: until it has arrived, reading is refused.
    """

    def __init__(self, database: Database, keyring: Keyring, writer: Writer, *, patience_s: float = PATIENCE_S) -> None:
        self._database = database
        self._keyring = keyring
        self._writer = writer
        self._patience_s = patience_s
        self._fresh: dict[str, tuple[str, EntryRow]] = {}  # id → tenant and entry
        self._is_whole = False

    async def write(self, statement: Statement) -> EntryRow:
        """Write one; true on return: it is durable. Raises the journal's errors."""
        fields = dict(statement.fields)
        if "ticket" in statement.texts:
            fields["ticket"] = self._keyring.pseudonym(statement.tenant, "ticket", statement.texts["ticket"])
        about = statement.about
        draft = self._writer.draft(
            statement.kind,
            tenant=statement.tenant,
            actor=statement.actor,
            prev=() if about is None else (Ref(about.id, about.leaf),),
            fields=fields,
        )
        contents: list[Content] = [(name, "text/plain", text.encode()) for name, text in statement.texts.items()]
        done = await self._writer.append(draft, contents)
        row = EntryRow(
            origin=done.origin,
            seq=done.seq,
            id=draft.id,
            kind=draft.kind,
            ts_ns=draft.ts_ns,
            entry=done.entry,
            leaf=done.leaf,
        )
        self._fresh[draft.id] = (statement.tenant, row)
        return row

    async def read(self, tenant: str) -> list[EntryRow]:
        """Every hold and approval of a tenant, oldest first.

        Raises:
            StorageUnavailable: the database is away, or does not hold yet what this journal held at the start.
            QueryError: there are more than are read at once.
        """
        if not self._is_whole:
            await self._arrived()
            self._is_whole = True
        fresh = {name: row for name, (whose, row) in self._fresh.items() if whose == tenant}
        rows = await asyncio.to_thread(queries.statements, self._database, tenant, KINDS)
        for row in rows:
            if fresh.pop(row.id, None) is not None:
                self._fresh.pop(row.id, None)
        return sorted([*rows, *fresh.values()], key=lambda row: (row.ts_ns, row.origin, row.seq))

    async def _arrived(self) -> None:
        """Wait a little until the database holds what this journal held at the start."""
        origin, found = self._writer.origin, self._writer.found
        deadline_s = time.monotonic() + self._patience_s
        while (there := await asyncio.to_thread(queries.shipped, self._database, origin)) < found:
            if time.monotonic() > deadline_s:
                raise StorageUnavailable(
                    f"{found - there:,} entries of {origin} are not in the database yet",
                    advice="Try again in some seconds; `answerable doctor` says what keeps them.",
                )
            await asyncio.sleep(LOOK_EVERY_S)
