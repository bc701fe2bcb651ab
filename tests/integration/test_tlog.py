"""`/log/…`: ledgers and the log of logs are read, whole, by a reader that knows the specification alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest

from storage import tiles, tlog
from storage.clickhouse import Database
from storage.keys import Keyring
from storage.ledger import Ledger
from storage.logproofs import check_twice, prove_twice
from storage.proofs import Tiles
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_log_of_logs import Site
from tests.integration.test_shipper import ship_all, shipper
from tests.support.batches import START_NS, Shard
from tests.support.database import fresh_profile, opened
from tests.support.desks import Records, Running, running, write_bank
from tests.support.tlog_reader import read

AUDIT = {"Answerable-Purpose": "audit"}


@pytest.fixture(scope="module")
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    data = tmp_path_factory.mktemp("bank")
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(data=data, database=database, keyring=Keyring.open(data, create=True))
        asyncio.run(write_bank(records))
        yield records


@pytest.fixture
async def desk(bank: Records, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(bank, tmp_path) as up:
        yield up


def fetching(desk: Running, prefix: str, headers: dict[str, str]):
    async def fetch(path: str) -> bytes:
        answer = await desk.client.get(f"{prefix}/{path}", headers=headers)
        assert answer.status == 200, (path, await answer.text())
        media = "text/plain" if path == "checkpoint" else "application/octet-stream"
        assert answer.content_type == media
        cached = "no-store" if path == "checkpoint" else "private, max-age=31536000, immutable"
        assert answer.headers["Cache-Control"] == cached
        return await answer.read()

    return fetch


async def test_an_auditor_reads_a_whole_ledger_and_leaves_an_entry_for_each_bundle(bank: Records, desk: Running):
    public = bank.keyring.log.public_key().public_bytes_raw()
    for shard in ("gateway-0", "keeper"):
        before = len(desk.accesses())
        headers = desk.headers("auditor") | AUDIT
        found = await read(fetching(desk, f"/log/{shard}/1", headers), origin=f"bank/{shard}/1", public=public)
        assert found.size == len(found.entries) > 0
        (entry,) = desk.accesses()[before:]
        assert (entry["action"], entry["purpose"], entry["rows"]) == ("entries", "audit", found.size)


async def test_the_log_of_logs_is_read_like_any_other_and_holds_every_ledgers_checkpoint(bank: Records, desk: Running):
    public = bank.keyring.log.public_key().public_bytes_raw()
    headers = desk.headers("compliance")
    found = await read(fetching(desk, "/log/log", headers), origin="bank/log", public=public)
    leaves = [orjson.loads(raw) for raw in found.entries]
    assert {leaf["origin"] for leaf in leaves} == {"bank/gateway-0/1", "bank/keeper/1"}
    for leaf in leaves:
        if leaf["kind"] == "checkpoint" and leaf["origin"] == "bank/gateway-0/1":
            served = await desk.client.get("/log/gateway-0/1/checkpoint", headers=headers)
            assert (await served.text()) == leaf["note"]
            break
    assert desk.accesses() == []  # hashes and checkpoints are nobody's data


MAY = {
    "auditor": (200, 200, 200),
    "compliance": (200, 200, 403),
    "regulator": (200, 200, 403),
    "model_owner": (200, 200, 403),
    "dpo": (200, 200, 403),
    "admin": (200, 200, 403),
    "support": (403, 403, 403),
    "nobody": (403, 403, 403),
}


@pytest.mark.parametrize("role", MAY)
async def test_who_may_read_what_of_a_ledger(desk: Running, role: str):
    matter = {"id": "2026-17", "routes": ["mortgage"], "from": "2026-02-01", "to": "2026-04-01"}
    headers = desk.headers(role, matter=matter) | AUDIT
    checkpoint = await desk.client.get("/log/gateway-0/1/checkpoint", headers=headers)
    found = [checkpoint.status]
    width = (await checkpoint.text()).split("\n")[1] if found == [200] else "1"
    for path in (f"tile/0/000.p/{width}", f"tile/entries/000.p/{width}"):
        answer = await desk.client.get(f"/log/gateway-0/1/{path}", headers=headers)
        found.append(answer.status)
    assert tuple(found) == MAY[role]
    refused = [entry["outcome"] for entry in desk.accesses()]
    assert refused == {"nobody": [], "support": []}.get(role, ["granted" if role == "auditor" else "refused"])


async def test_nobody_reads_without_a_token_and_an_auditor_states_why(desk: Running):
    answer = await desk.client.get("/log/log/checkpoint")
    assert (answer.status, (await answer.json())["error"]["code"]) == (401, "signin_required")
    headers = desk.headers("auditor", purpose=None, ticket=None)
    answer = await desk.client.get("/log/keeper/1/tile/entries/000.p/1", headers=headers)
    assert (answer.status, (await answer.json())["error"]["code"]) == (428, "purpose_required")
    matter = {"id": "2026-17", "routes": ["mortgage"], "from": "2026-02-01", "to": "2026-04-01"}
    for other in (
        desk.headers("auditor", tenant="other-bank"),
        desk.headers("auditor", "regulator", matter=matter),
        desk.headers("auditor", "admin"),
    ):
        answer = await desk.client.get("/log/keeper/1/tile/entries/000.p/1", headers=other | AUDIT)
        assert (answer.status, (await answer.json())["error"]["code"]) == (403, "role_forbidden")


@pytest.mark.parametrize(
    "path",
    [
        "gateway-9/1/checkpoint",
        "gateway-0/2/checkpoint",
        "gateway-0/0/checkpoint",
        "gateway-0/1/tile/0/000.p/999",
        "gateway-0/1/tile/0/000.p/0",
        "gateway-0/1/tile/0/000",
        "gateway-0/1/tile/0/0",
        "gateway-0/1/tile/0/x000/000",
        "gateway-0/1/tile/1/000.p/1",
        "gateway-0/1/tile/64/000",
        "gateway-0/1/tile/entries/001",
        "log/tile/0/001",
        "log/1/checkpoint",
    ],
)
async def test_what_a_ledger_has_not_is_not_found(desk: Running, path: str):
    answer = await desk.client.get(f"/log/{path}", headers=desk.headers("auditor") | AUDIT)
    assert answer.status == 404, await answer.text()
    assert (await answer.json())["error"]["code"] == "not_found"


async def test_full_and_upper_tiles_are_served_and_recompute_the_root(embedded: Database, tmp_path: Path):
    shard = Shard()
    for _ in range(4):
        shard.decisions(190, size=1)
    ship_all(shipper(embedded, tmp_path, shard), shard)
    ledger = Ledger(tmp_path / "ship", shard.origin, key=KEY)
    ledger.apply(shard.batches)
    ledger.sign(now_ns=START_NS)
    ledger.publish(embedded)
    Tiles(embedded, shard.origin).grow(ledger.size)

    async def fetch(path: str) -> bytes:
        if path == "checkpoint":
            served = tlog.checkpoint(embedded, shard.origin)
            assert served is not None
            return served.note
        kind, _, rest = path.removeprefix("tile/").partition("/")
        if kind == "entries":
            found = tlog.bundle(embedded, shard.origin, tiles.parse_path(f"0/{rest}"))
        else:
            found = tlog.tile(embedded, shard.origin, tiles.parse_path(f"{kind}/{rest}"))
        assert found is not None
        return found

    found = await read(fetch, origin=shard.origin, public=PUBLIC)
    assert (found.size, found.entries) == (760, shard.entries)


async def test_a_checkpoint_over_what_is_not_shipped_yet_is_not_served(embedded: Database, tmp_path: Path):
    shard = Shard()
    shard.decisions(3, size=1)
    ship_all(shipper(embedded, tmp_path, shard), shard)
    ledger = Ledger(tmp_path / "ship", shard.origin, key=KEY)
    for _ in range(2):
        ledger.apply(shard.batches)
        ledger.sign(now_ns=START_NS)
        ledger.publish(embedded)
        shard.decisions(3, size=1)
    served = tlog.checkpoint(embedded, shard.origin)
    assert served is not None
    assert served.size == 3


def test_an_entry_is_proven_up_to_the_log_of_logs_and_both_proofs_belong_together(embedded: Database, tmp_path: Path):
    from storage.errors import Unverifiable
    from storage.merkle import leaf_hash

    shard, other = Shard(), Shard(origin="acme/gateway-1/1")
    for one in (shard, other):
        one.heartbeat()
        one.decisions(5, size=1)
        ship_all(shipper(embedded, tmp_path, one), one)
    assert prove_twice(embedded, shard.origin, 3, public=PUBLIC) is None
    site = Site(tmp_path, shard, other)
    site.round(embedded)
    told = {}
    for one in (shard, other):
        for seq in range(6):
            found = prove_twice(embedded, one.origin, seq, public=PUBLIC)
            assert found is not None
            leaf = leaf_hash(one.entries[seq])
            check_twice(found.entry.text, found.text, leaf=leaf, origin=one.origin, public=PUBLIC)
            told[one.origin, seq] = (found.entry.text, found.text, leaf)
    first, second, leaf = told[shard.origin, 3]
    for wrong in (
        (first, told[other.origin, 3][1], leaf, shard.origin),  # the other shard's second proof
        (told[shard.origin, 4][0], second, leaf, shard.origin),  # another entry's first one
        (first, second, leaf_hash(b"x"), shard.origin),
        (first, second, leaf, other.origin),
        (first, second.replace(b"extra ", b"extra AAAA", 1), leaf, shard.origin),
        (first, b"\n".join(line for line in second.split(b"\n") if not line.startswith(b"extra")), leaf, shard.origin),
        (second, first, leaf, shard.origin),
    ):
        with pytest.raises(Unverifiable):
            check_twice(wrong[0], wrong[1], leaf=wrong[2], origin=wrong[3], public=PUBLIC)
