"""What the desk is given: the host's real parts, as `gateway.desk.context.Context` asks for them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from config.load import Configuration
from gateway import development
from gateway.desk.app import Desk, create
from gateway.desk.context import Access, Context, Job, Proof
from gateway.keeper.opening import by_part, opened
from gateway.keeper.statements import Statements
from gateway.keeper.writing import Content, Writer
from storage import durable, logproofs, proofs, queries
from storage.bundles import Bundler, Made, Tell, Wanted
from storage.clickhouse import Database
from storage.entries import decode
from storage.keys import Keyring
from storage.segment import StoredPart, WrappedKey

EXPORTS = "exports"  # under DATA: evidence bundles until they are fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The parts that a process brings to its desk."""

    configuration: Configuration
    database: Database
    keyring: Keyring
    writer: Writer
    job: Callable[[str], Job | None]
    problems: Callable[[], Sequence[str]]

    def desk(self) -> Desk:
        """A desk over these parts, not listening yet."""
        statements = Statements(self.database, self.keyring, self.writer)
        settings = self.configuration.settings
        issuers = settings.desk.issuers
        if settings.desk.development:
            issuers = (*issuers, development.issuer(self.configuration.data))
        exports = self.configuration.data / EXPORTS
        durable.make_directory(exports)
        for left in exports.iterdir():  # by a process that is no more
            left.unlink()
        return create(
            Context(
                configuration=self.configuration,
                database=self.database,
                record_access=self.record_access,
                state=statements.write,
                statements=statements.read,
                open_parts=self.open_parts,
                prove=self.prove,
                bundle=self.bundle,
                exports=exports,
                pseudonyms=self.keyring.pseudonyms,
                job=self.job,
                problems=self.problems,
                issuers=issuers,
                now_ns=time.time_ns,
                random=os.urandom,
            )
        )

    async def record_access(self, access: Access) -> None:
        """Write one look into the own journal; true on return: it is durable. Raises the journal's errors."""
        fields = {
            "role": access.role,
            "action": access.action,
            "purpose": access.purpose,
            "ticket": None if access.ticket is None else self.keyring.pseudonym(access.tenant, "ticket", access.ticket),
            "outcome": access.outcome.value,
            "reason": access.reason,
            "case": access.case,
            "subject": access.subject,
            "filter": access.filter,
            "rows": access.rows,
            "matter": access.matter,
        }
        draft = self.writer.draft(
            "access",
            tenant=access.tenant,
            actor=access.actor,
            route=access.route,
            decision=access.decision,
            fields=fields,
        )
        # a ticket is people's free text, and free text stands in sealed parts only
        contents: list[Content] = [] if access.ticket is None else [("ticket", "text/plain", access.ticket.encode())]
        await self.writer.append(draft, contents)

    async def open_parts(self, entry: bytes) -> Mapping[str, bytes]:
        """The plaintext of an entry's parts by name, out of ClickHouse; a part whose key is gone is left out."""
        return await asyncio.to_thread(open_stored, self.database, self.keyring, entry)

    def bundle(self, wanted: Wanted, path: Path, tell: Tell) -> Made:
        """Write an evidence bundle. Blocking; raises as `Bundler.make`."""
        deployment = self.configuration.settings.deployment
        bundler = Bundler(self.database, self.keyring, deployment=deployment, now_ns=time.time_ns())
        return bundler.make(wanted, path, tell=tell)

    async def prove(self, origin: str, seq: int) -> Proof | None:
        """The proof of one entry, verified before it is handed out; None while no checkpoint covers it."""
        public = self.keyring.log.public_key().public_bytes_raw()
        return await asyncio.to_thread(proof_of, self.database, origin, seq, public=public)


def proof_of(database: Database, origin: str, seq: int, *, public: bytes) -> Proof | None:
    """The double proof of one entry; the first of the two alone until the log of logs has it; None before. Blocking.

    Raises:
        Unverifiable: what is stored is not what was signed.
    """
    doubly = logproofs.prove_twice(database, origin, seq, public=public)
    proven = proofs.prove(database, origin, seq, public=public) if doubly is None else doubly.entry
    if proven is None:
        return None
    return Proof(
        origin=proven.origin,
        seq=proven.seq,
        leaf=proven.leaf,
        size=proven.size,
        text=proven.text.decode(),
        second=None if doubly is None else doubly.text.decode(),
        log_size=None if doubly is None else doubly.log_size,
    )


def open_stored(database: Database, keyring: Keyring, raw: bytes) -> dict[str, bytes]:
    """The plaintext of an entry's parts by name, out of ClickHouse; a part whose key is gone is left out. Blocking.

    Raises:
        Unverifiable: what is stored does not match what the entry commits to.
        StorageUnavailable, QueryError: the database does not answer, or will not.
    """
    entry = decode(raw)
    origin, seq = entry["origin"], entry["seq"]
    names = sorted({part["key"] for part in entry["parts"]})
    found = queries.wrapped_keys(database, origin, seq, names)
    keys = {key.key_id: WrappedKey(key.key_id, key.counter, key.wrapped, key.segment) for key in found}
    headers = {}
    for segment in {key.segment for key in keys.values()}:
        header = queries.segment_header(database, origin, segment)
        if header is not None:
            headers[segment] = header
    chunks = [
        StoredPart(part.key_id, part.index, part.chunk, part.data)
        for part in queries.parts(database, origin, seq, sorted(keys))
    ]
    return opened(entry, stored=by_part(chunks), keys=keys, headers=headers, keyring=keyring)


async def listening(desk: Desk, configuration: Configuration) -> web.AppRunner:
    """The desk at its address; raises OSError where the port is taken."""
    runner = desk.runner()
    await runner.setup()
    await web.TCPSite(runner, configuration.settings.desk.host, configuration.settings.desk.port).start()
    return runner
