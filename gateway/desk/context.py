"""What the desk is given by the process that hosts it (the keeper, or a desk of its own).

The host builds one `Context` from its real parts and hands it to `gateway.desk.app.create`. The desk itself opens no
database, no journal and no key file, and it writes only through `record_access` and `state`.

    desk = create(context)                     # gateway.desk.app
    runner = desk.runner()                     # the host listens: await runner.setup(); web.TCPSite(runner, …)
    path = desk.invite(subject=…, roles=…, …)  # the command `signin-code`: "/signin/<one-time code>"
    answer = await desk.why(bearer, decision, purpose=…, ticket=…)   # the command `why`: {"sentences": […], …}
    await desk.close()
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from config.callers import Issuer
from config.load import Configuration
from storage.bundles import Made, Tell, Wanted
from storage.clickhouse import Database
from storage.queries import EntryRow


class JobState(StrEnum):
    """Where an explanation stands while the keeper holds its job."""

    PENDING = "pending"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Job:
    """The state of one decision's explanation, and why it failed or was skipped."""

    state: JobState
    reason: str = ""


class Outcome(StrEnum):
    """How a look at records ended."""

    GRANTED = "granted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One look, or one refused attempt, as it is written into the host's journal before any row is returned.

    As an entry: kind `access`, `actor` as below, `decision` and `route` where it concerns one; the fields
    `role, action, purpose, outcome, reason, case, subject, filter, rows, matter` in clear (all of them names and
    pseudonyms of ours); the ticket, being people's free text, only as a sealed part named `ticket` (text/plain), left
    out where there is none, with its pseudonym (kind `ticket`) as the field `ticket`.
    """

    tenant: str
    actor: str  # "<issuer>|<subject>"
    role: str  # the roles, comma between them
    # lookup, case, decisions, decision, proof, entries, evidence, reconcile, hold, holds, approve, approvals, try
    action: str
    purpose: str  # one of gateway.desk.roles.PURPOSES
    ticket: str | None
    outcome: Outcome
    reason: str | None  # the code of the refusal
    decision: str | None  # its id
    route: str | None
    case: str | None  # a pseudonym
    subject: str | None  # a pseudonym
    filter: str | None  # hex SHA-256 of a list's filter
    rows: int  # how many decisions the answer tells of
    matter: str | None  # a regulator's


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What somebody states at the desk, as an entry of kind `hold` or `approval`.

    `fields` are the entry's own, in clear: ids, codes and pseudonyms of ours. What people write freely stands in
    `texts`, by name, and becomes sealed parts (text/plain); a text named `ticket` is also the field `ticket`, as a
    pseudonym. `about` is the earlier statement that it answers.
    """

    kind: str
    tenant: str
    actor: str  # "<issuer>|<subject>"
    fields: Mapping[str, Any]
    texts: Mapping[str, str]
    about: EntryRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The proof of one entry, verified before it is handed out: a C2SP tlog-proof up to its shard's checkpoint.

    `second` is the one from that checkpoint to the log of logs; None while that one does not hold it.
    """

    origin: str
    seq: int
    leaf: bytes
    size: int  # of the checkpoint's tree
    text: str
    second: str | None = None
    log_size: int | None = None  # leaves under the second proof's checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The host's parts.

    `database` is called from threads; everything else from the event loop. `record_access` returns when the entry is
    durable and raises the journal's error where it is not: then nothing is shown. `state` writes a statement likewise
    and returns its entry; `statements` gives all of a tenant's holds and approvals, those included that this host wrote
    a moment ago, oldest first, and raises `StorageUnavailable` while it cannot know them all. `open_parts` takes a
    decision's entry as stored (or an explanation's) and returns the plaintext of its parts by name; a part whose key is
    gone is left out. `prove` returns None while no checkpoint covers the entry, and raises an `AnswerableError` if it
    does not verify. `job` knows the jobs that the host holds now: None for any other decision. `problems` lists what
    keeps the host from being ready.
    """

    configuration: Configuration
    database: Database
    record_access: Callable[[Access], Awaitable[None]]
    state: Callable[[Statement], Awaitable[EntryRow]]
    statements: Callable[[str], Awaitable[Sequence[EntryRow]]]
    open_parts: Callable[[bytes], Awaitable[Mapping[str, bytes]]]
    prove: Callable[[str, int], Awaitable[Proof | None]]
    bundle: Callable[[Wanted, Path, Tell], Made]  # blocking: writes an evidence bundle
    exports: Path  # where those lie that somebody is to fetch; empty at the start
    pseudonyms: Callable[[str, str, str], Sequence[str]]  # tenant, kind (case|subject), value → newest first
    job: Callable[[str], Job | None]
    problems: Callable[[], Sequence[str]]
    issuers: tuple[Issuer, ...]  # desk.issuers, and the machine's own where desk.development says so
    now_ns: Callable[[], int]
    random: Callable[[int], bytes]

    @property
    def trying(self) -> bool:
        """`answerable try`: the try page and the role developer exist."""
        return self.configuration.settings.desk.developer
