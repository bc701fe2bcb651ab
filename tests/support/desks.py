"""A desk for tests: decisions in a real journal, shipped into a real database, and a desk that listens on loopback.

`Records` is a small bank's past, made once per test module: gateway and keeper journals, extraction and explanation
entries, checkpoints; everything goes through the storage package's own writers, shipper and projector. `running` opens
a desk over it, with a journal of its own for access entries.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from aiohttp.test_utils import TestClient, TestServer

from config.load import Configuration, from_tree
from gateway.desk.app import Desk, create
from gateway.desk.context import Context, Job, Proof
from gateway.keeper.hosting import Host, proof_of
from gateway.keeper.statements import Statements
from gateway.keeper.writing import Writer
from storage.clickhouse import Database
from storage.durable import KERNEL, Syscalls
from storage.entries import Draft, Ref, decode
from storage.ids import b64, uuid7
from storage.journal import Journal
from storage.keys import Keyring
from storage.ledger import Ledger
from storage.logoflogs import LogOfLogs, Source
from storage.projections import Projector
from storage.reading import SegmentTail
from storage.segment import SegmentHeader
from storage.shipper import Shipper
from tests.support.journals import SMALL, read_all
from tests.support.tokens import TokenIssuer

TENANT = "first-bank"
DAY_NS = 86_400 * 1_000_000_000
START_NS = 1_772_546_709_000_000_000  # 3 March 2026, 14:05:09 UTC
NOW_NS = START_NS + 3_600 * 1_000_000_000
EVIL = "\"><img src=x onerror=alert(1)><script>alert('x')</script>"
FACTORS = (
    ("obrat", "Monthly debts as a share of income", "47", "%", -0.92),
    ("gdlin", "Credit guidelines met", "no", None, -0.81),
    ("pubrec", "Public record of a default", "yes", None, -0.44),
    ("loanprc", "Loan as a share of the price", "92", "%", -0.31),
    ("chist", "Credit history is clean", "yes", None, 0.21),
    ("mortno", "No mortgage history", "no", None, -0.12),
    ("unver", "Information unverified", "no", None, 0.09),
    ("term", "Term of the loan", "360", "months", -0.05),
    ("cosign", "Somebody co-signs", "no", None, -0.04),
    ("dep", "Dependants", "1", None, 0.03),
    ("netw", "Net worth", "62,000", "dollars", -0.02),
)
TEXTS = (
    ("R01", "obrat", "Your monthly debts take a large part of your income (47 %)."),
    ("R07", "gdlin", "The credit guidelines were not met."),
    ("R03", "pubrec", "There is a public record of an earlier default."),
    ("R05", "loanprc", "The loan is large compared with the price of the home (92 %)."),
)


def configuration(base: Path, **desk: Any) -> Configuration:
    """A small bank's configuration."""
    extract = {"label": "label", "favourable": ["approved"], "adverse": ["denied"], "score": "probability"}
    tree: dict[str, Any] = {
        "deployment": "bank",
        "data": "data",
        "tenant": TENANT,
        "callers": {"mode": "open"},
        "desk": desk,
        "routes": [
            {
                "name": "mortgage",
                "prefix": "/mortgage",
                "upstream": "http://127.0.0.1:9",
                "extract": extract,
                "model": {"name": "mortgage-approval"},
            },
            {"name": "cards", "prefix": "/cards", "upstream": "http://127.0.0.1:9", "explain": {"when": "never"}},
        ],
    }
    return from_tree(tree, base / "answerable.yaml")


def body(*, evil: bool = False, **changes: Any) -> dict[str, Any]:
    """An explanation part, as explainers write it."""
    base = 1.62
    value = base + sum(factor[4] for factor in FACTORS)
    gap = base - value
    return {
        "v": 1,
        "method": {"name": "interventional-treeshap", "version": 1, "computation": "exact"},
        "versions": {"shap": "0.51.0"},
        "model": {"name": "mortgage-approval", "version": "2026.1", "digest": "ab12" * 16},
        "baseline": {"digest": "cd34" * 16, "kind": "near_cutoff", "rows": 240},
        "output": {
            "space": "margin",
            "link": "logit",
            "favourable": "higher",
            "base": base,
            "value": value,
            "cutoff": 0.0,
            "answer": {"space": "probability", "base": 0.83, "value": 0.312, "cutoff": 0.5},
            "recorded": 0.312,
        },
        "attributions": [
            {
                "feature": name,
                "label": EVIL if evil else label,
                "factor": name,
                "value": 1.0,
                "shown": EVIL if evil else shown,
                "unit": unit,
                "side": "higher",
                "contribution": contribution,
            }
            for name, label, shown, unit, contribution in FACTORS
        ],
        "factors": [
            {
                "factor": name,
                "label": EVIL if evil else label,
                "features": [name],
                "contribution": contribution,
                "driver": name,
                "protected": False,
            }
            for name, label, _, _, contribution in FACTORS
        ],
        "adverse": True,
        "notice": "ready",
        "reasons": [
            {
                "rank": rank,
                "code": EVIL if evil else code,
                "factor": factor,
                "text": EVIL if evil else text,
                "contribution": FACTORS[rank - 1][4],
                "share": -FACTORS[rank - 1][4] / gap,
            }
            for rank, (code, factor, text) in enumerate(TEXTS, 1)
        ],
        "withheld": [],
        "flags": [],
        "quality": {
            "additivity": 3.1e-13,
            "output_difference": 2.2e-8,
            "tolerance": 1e-5,
            "baseline_rows": 240,
            "sufficiency": {"gap_closed": 0.74, "flips": True, "sufficient": True},
        },
        "binding": "announced",
        "verdict": "sound",
        "counterfactuals": [],
        **changes,
    }


@dataclass
class Made:
    """One decision that a test made."""

    id: str
    seq: int
    leaf: bytes
    route: str
    tenant: str
    extracted: list[Any]


@dataclass
class Records:
    """A past that is on record; `by_name` holds the decisions by the name that the test gave them."""

    data: Path
    database: Database
    keyring: Keyring
    by_name: dict[str, Made] = field(default_factory=dict)
    tails: dict[Path, tuple[SegmentTail, Shipper]] = field(default_factory=dict)
    ledgers: dict[Path, Ledger] = field(default_factory=dict)
    projector: Projector | None = None
    log: LogOfLogs | None = None

    def id(self, name: str) -> str:
        """A decision's id."""
        return self.by_name[name].id

    def pseudonym(self, kind: str, value: str, tenant: str = TENANT) -> str:
        """A case's or person's pseudonym."""
        return self.keyring.pseudonym(tenant, kind, value)

    def ship(self) -> None:
        """Bring all journals under the data directory into the database, with typed rows."""
        for directory in sorted((self.data / "journal").iterdir()):
            if directory not in self.tails:
                tail = SegmentTail(directory)
                first = next(iter(tail.batches()))
                headers = _headers(directory)
                shipper = Shipper(
                    self.database, self.data / "ship", first.origin, header=headers, clock_ns=time.time_ns
                )
                tail.close()
                self.tails[directory] = (SegmentTail(directory), shipper)
            tail, shipper = self.tails[directory]
            held = list(tail.batches())
            while held:
                done = shipper.ship(held)
                assert done is not None
                del held[: done.batches]
        self.projector = self.projector or Projector(self.database, self.data / "ship")
        shipped = {shipper.origin: shipper.next_seq for _, shipper in self.tails.values()}
        for origin in sorted(shipped):
            while self.projector.step(origin, shipped) is not None:
                pass

    def checkpoint(self) -> None:
        """Sign and publish a checkpoint over everything that is shipped."""
        for directory, (_, shipper) in self.tails.items():
            ledger = self.ledgers.get(directory)
            if ledger is None:
                ledger = Ledger(self.data / "ship", shipper.origin, key=self.keyring.log)
                self.ledgers[directory] = ledger
            tail = SegmentTail(directory)
            ledger.apply(tail.batches())
            tail.close()
            ledger.sign(now_ns=time.time_ns())
            ledger.publish(self.database)
        self.log = self.log or LogOfLogs(self.data / "ship", "bank", key=self.keyring.log)
        sources = [
            Source(ledger=ledger, header=_parsed(directory)) for directory, ledger in sorted(self.ledgers.items())
        ]
        self.log.round(sources, now_ns=time.time_ns())
        self.log.publish(self.database)


def _parsed(directory: Path) -> Callable[[int], SegmentHeader]:
    header = _headers(directory)
    return lambda first_seq: SegmentHeader.from_bytes(header(first_seq))


def _headers(directory: Path) -> Callable[[int], bytes]:
    def header(first_seq: int) -> bytes:
        with (directory / f"{first_seq:020d}.jrn").open("rb") as file:
            return SegmentHeader.from_bytes(file.read(4096)).to_bytes()

    return header


class Past:
    """Writes a past: decisions through a gateway's journal, extractions and explanations through the keeper's."""

    def __init__(self, records: Records, gateway: Journal, keeper: Writer) -> None:
        self.records = records
        self.gateway = gateway
        self.keeper = keeper

    async def decide(
        self,
        name: str,
        *,
        label: str | None = "denied",
        case: str | None = None,
        subject: str | None = None,
        route: str = "mortgage",
        tenant: str = TENANT,
        at_ns: int = START_NS,
        request: bytes = b'{"application": {"income": 2500}}',
        random: bytes | None = None,
        **fields: Any,
    ) -> Made:
        """One decision, durable in the gateway's journal."""
        identifier = uuid7(at_ns, random or os.urandom(8))
        response = orjson.dumps({"label": label, "probability": 0.312})
        key = self.gateway.new_key()
        asked, asked_bytes = key.sealer.seal("request", "application/json", request, 0)
        answered, answered_bytes = key.sealer.seal("response", "application/json", response, 1)
        said: dict[str, Any] = {
            "app": "branch-office",
            "call": {"method": "POST", "path": "/score", "request_id": identifier[-12:]},
            "case": self.records.pseudonym("case", case, tenant) if case else None,
            "subject": self.records.pseudonym("subject", subject, tenant) if subject else None,
            "purpose": "credit",
            "corrects": None,
            "mode": "strict",
            "retention": "default",
            "model": {
                "name": "mortgage-approval",
                "version": "2026.1",
                "digest": "ab12" * 16,
                "source": "announced",
            },
            "status": 200,
            "error": None,
            "timing": {
                "received_ns": str(at_ns - 7_000_000),
                "upstream_first_us": 3_900,
                "upstream_us": 4_120,
                "total_us": 6_900,
            },
            "stream": {"state": "complete", "streamed": False, "bytes": len(response)},
            **fields,
        }
        draft = Draft(
            kind="decision",
            tenant=tenant,
            route=route,
            actor="app:branch-office",
            id=identifier,
            decision=identifier,
            ts_ns=at_ns,
            config="9f" * 32,
            parts=(asked, answered),
            fields=said,
        )
        self.gateway.admit(tenant, route)
        done = await self.gateway.append(draft, parts=[asked_bytes, answered_bytes], key=key, closes=True)
        favourable = {"approved": 1, "denied": 0}.get(label or "")
        error = None if label is not None else "label: not found"
        row = [identifier, b64(done.leaf), label, favourable, 0.312, None, None, error]
        made = Made(identifier, done.seq, done.leaf, route, tenant, row)
        self.records.by_name[name] = made
        return made

    async def extract(self, made: Sequence[Made], *, at_ns: int = START_NS + 310_000_000) -> None:
        """One extraction entry a decision: as one keeper step would write for a slow stream of calls."""
        for one in made:
            fields = {
                "extractor": "e" * 64,
                "cols": ["decision", "leaf", "label", "favourable", "score", "case", "subject", "error"],
                "rows": [one.extracted],
                "source": {"origin": self.gateway.origin, "first": one.seq, "last": one.seq},
            }
            draft = self.keeper.draft("extraction", tenant=one.tenant, route=one.route, fields=fields)
            await self.keeper.append(_at(draft, at_ns))

    async def explain(
        self, made: Made, explained: Mapping[str, Any] | None, *, at_ns: int = START_NS + 640_000_000, **over: Any
    ) -> None:
        """An explanation entry, ready with `explained` as its part, or failed."""
        said = explained or {}
        fields = {
            "key": hashlib.sha256(made.id.encode()).hexdigest(),
            "method": "interventional-treeshap",
            "method_version": 1,
            "model": "ab12" * 16,
            "binding": said.get("binding"),
            "verdict": said.get("verdict", "failed"),
            "notice": said.get("notice", "human"),
            "codes": [reason["code"] for reason in said.get("reasons", ())],
            "state": "ready" if explained is not None else "failed",
            "error": None if explained is not None else "features_missing",
            "message": None,
            "source": {"origin": self.gateway.origin, "seq": made.seq},
            **over,
        }
        draft = self.keeper.draft(
            "explanation",
            tenant=made.tenant,
            route=made.route,
            decision=made.id,
            prev=(Ref(made.id, made.leaf),),
            fields=fields,
        )
        contents = [] if explained is None else [("explanation", "application/json", orjson.dumps(explained))]
        await self.keeper.append(_at(draft, at_ns), contents)


def _at(draft: Draft, at_ns: int) -> Draft:
    return replace(draft, ts_ns=at_ns)


@contextlib.asynccontextmanager
async def past(records: Records) -> AsyncIterator[Past]:
    """Journals to write a past into; shipped, projected and signed over at the end."""
    keys = records.keyring.journal_keys()
    gateway = await Journal.open(
        records.data / "journal" / "gateway-0", origin_base="bank/gateway-0", keys=keys, limits=SMALL
    )
    keeper = await Journal.open(records.data / "journal" / "keeper", origin_base="bank/keeper", keys=keys, limits=SMALL)
    yield Past(records, gateway, Writer(keeper, config="9f" * 32))
    await gateway.close()
    await keeper.close()
    await asyncio.to_thread(records.ship)
    await asyncio.to_thread(records.checkpoint)


async def write_bank(records: Records) -> None:
    """The past that most tests look at."""
    async with past(records) as writing:
        decide, explain = writing.decide, writing.explain
        denied = await decide("denied", case="A-1", subject="S-1")
        await decide("approved", label="approved", case="A-2", subject="S-2")
        await decide("waiting", case="A-3", subject="S-1")
        failed = await decide("failed", case="A-4")
        unbound = await decide("unbound", case="A-5")
        uncertain = await decide("uncertain", case="A-6")
        blocked = await decide("blocked", case="A-7")
        await decide("corrected", label="approved", case="A-1", subject="S-1", corrects=denied.id, at_ns=START_NS + 9)
        await decide("cards", route="cards", case="C-1", subject="S-9")
        await decide("old", case="O-1", subject="S-1", at_ns=START_NS - 60 * DAY_NS)
        await decide("foreign", case="A-1", subject="S-1", tenant="other-bank")
        cut = {"status": 502, "error": "upstream_cut", "stream": {"state": "upstream_aborted", "bytes": 3}}
        await decide("broken-off", label=None, case="A-8", **cut)
        evil = await decide(
            "evil", label=EVIL[:60], case="A-9", app=EVIL, purpose=EVIL[:30], request=orjson.dumps({EVIL: EVIL})
        )
        erased = await decide("erased", case="A-10")
        explained = body()
        await explain(denied, explained)
        await explain(failed, None)
        await explain(unbound, body(binding="unbound", verdict="failed", notice="human", reasons=[]))
        withheld = {"withheld": explained["reasons"], "reasons": []}
        flag = {"kind": "unmapped_factor", "factor": "obrat", "detail": ""}
        await explain(uncertain, body(notice="human", flags=[flag], **withheld))
        flag = {"kind": "protected_factor", "factor": "gdlin", "detail": ""}
        factors = [{**factor, "protected": factor["factor"] == "gdlin"} for factor in explained["factors"]]
        await explain(blocked, body(notice="blocked", flags=[flag], factors=factors, **withheld))
        await explain(evil, body(evil=True))
        await explain(erased, explained)
        await writing.extract(list(records.by_name.values()))
    await asyncio.to_thread(_erase, records, erased)


def _erase(records: Records, made: Made) -> None:
    """Destroy the keys of a decision and its explanation, as erasure does."""
    found = records.database.rows(
        "SELECT entry FROM entries WHERE decision = {id:UUID} OR id = {id:UUID}", {"id": made.id}
    )
    keys = [part["key"] for row in found for part in decode(row[0]).get("parts", ())]
    records.database.command(
        "ALTER TABLE keys DELETE WHERE key_id IN {keys:Array(UUID)}", {"keys": keys}, settings={"mutations_sync": 2}
    )


@dataclass
class Running:
    """A desk that listens, and what it wrote."""

    desk: Desk
    client: TestClient[Any, Any]
    journal: Path
    issuer: TokenIssuer
    jobs: dict[str, Job]
    clock: list[int]
    problems: list[str]

    def token(self, *roles: str, subject: str = "amy", **claims: Any) -> str:
        """A bearer token."""
        return self.issuer.token(now_s=time.time(), sub=subject, roles=list(roles), **claims)

    def headers(
        self, *roles: str, purpose: str | None = "audit", ticket: str | None = "T-1", **claims: Any
    ) -> dict[str, str]:
        """Headers of an API call."""
        made = {"Authorization": f"Bearer {self.token(*roles, **claims)}"}
        if purpose is not None:
            made["Answerable-Purpose"] = purpose
        if ticket is not None:
            made["Answerable-Ticket"] = ticket
        return made

    def accesses(self) -> list[dict[str, Any]]:
        """The access entries that are durable now."""
        batches = read_all(self.journal)
        return [e for e in (orjson.loads(r.entry) for b in batches for r in b.records) if e["kind"] == "access"]

    async def sign_in(self, *roles: str, **invitation: Any) -> str:
        """Sign the client's cookie jar in by a one-time code; the session's CSRF token."""
        path = self.desk.invite(subject="amy", roles=list(roles), **invitation)
        answer = await self.client.post("/signin", data={"code": path.removeprefix("/signin/")}, allow_redirects=False)
        assert answer.status == 303, await answer.text()
        page = await (await self.client.get("/")).text()
        return page.partition('name="csrf" value="')[2].partition('"')[0]


@contextlib.asynccontextmanager
async def running(
    records: Records, tmp_path: Path, *, syscalls: Syscalls = KERNEL, **desk: Any
) -> AsyncIterator[Running]:
    """A desk over `records`, listening on loopback."""
    issuer = TokenIssuer()
    loaded = configuration(tmp_path, **desk)
    journal = await Journal.open(
        tmp_path / "desk-journal",
        origin_base="bank/desk",
        keys=records.keyring.journal_keys(),
        limits=SMALL,
        syscalls=syscalls,
    )
    jobs: dict[str, Job] = {}
    problems: list[str] = []
    clock = [NOW_NS]
    host = Host(
        configuration=loaded,
        database=records.database,
        keyring=records.keyring,
        writer=Writer(journal, config="9f" * 32),
        job=jobs.get,
        problems=lambda: problems,
    )

    statements = Statements(records.database, records.keyring, host.writer, patience_s=0.2)

    async def prove(origin: str, seq: int) -> Proof | None:
        return await asyncio.to_thread(_proof, records, origin, seq)

    exports = tmp_path / "exports"
    exports.mkdir(exist_ok=True)
    context = Context(
        configuration=loaded,
        database=records.database,
        record_access=host.record_access,
        state=statements.write,
        statements=statements.read,
        open_parts=host.open_parts,
        prove=prove,
        bundle=host.bundle,
        exports=exports,
        pseudonyms=records.keyring.pseudonyms,
        job=jobs.get,
        problems=lambda: problems,
        issuers=(issuer.settings(tmp_path / "jwks.json"),),
        now_ns=lambda: clock[0],
        random=os.urandom,
    )
    made = create(context)
    client: TestClient[Any, Any] = TestClient(TestServer(made.web))
    await client.start_server()
    try:
        yield Running(made, client, tmp_path / "desk-journal", issuer, jobs, clock, problems)
    finally:
        await client.close()
        await made.close()
        await journal.close()


def _proof(records: Records, origin: str, seq: int) -> Proof | None:
    return proof_of(records.database, origin, seq, public=records.keyring.log.public_key().public_bytes_raw())
