"""How many bytes a decision takes, in the journal and in ClickHouse, by the size of its bodies.

``python -m load_tests.sizing``: decisions with a sealed request and answer of 1, 16 and 64 KiB each go through a
journal and are shipped into embedded ClickHouse; one JSON line a size. The bodies are words in random order, which zstd
makes about 2.2 times smaller; what is random or compressed already takes its own size.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

from load_tests.journal import FIELDS
from storage.clickhouse import Database
from storage.entries import Draft
from storage.journal import Journal
from storage.keys import Keyring
from storage.migrate import migrate
from storage.profiles import Profile
from storage.reading import SegmentTail
from storage.segment import HEADER_BYTES, segment_name
from storage.shipper import Shipper

SIZES_KIB = (1, 16, 64)
AT_ONCE = 20  # appends that share a batch
DAY_S = 86_400
RATES = (10, 100, 500, 1_000)  # decisions a second
_WORDS = (Path(__file__).parent.parent / "storage" / "README.md").read_text().split()
_STORED = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"


def body(size_bytes: int, chance: random.Random) -> bytes:
    """A chat request of about this size."""
    text = " ".join(chance.choices(_WORDS, k=size_bytes // 4))
    return json.dumps({"messages": [{"role": "user", "content": text[: size_bytes - 50]}]}).encode()[:size_bytes]


async def journal_bytes(data: Path, size_bytes: int, count: int) -> float:
    """Have `count` decisions written; bytes of journal for each."""
    chance = random.Random(7)
    keys = Keyring.open(data, create=True).journal_keys()
    directory = data / "journal" / "gateway-0"
    journal = await Journal.open(directory, origin_base="bench/gateway-0", keys=keys)
    for _ in range(count // AT_ONCE):
        waiting = []
        for _ in range(AT_ONCE):
            journal.admit("acme", "chat")
            key, decision = journal.new_key(), journal.new_id()
            sealed = [
                key.sealer.seal(name, "application/json", body(size_bytes, chance), index)
                for index, name in enumerate(("request", "response"))
            ]
            draft = Draft(
                kind="decision",
                tenant="acme",
                route="chat",
                actor="app:bench",
                id=decision,
                ts_ns=time.time_ns(),
                decision=decision,
                config="c" * 64,
                parts=tuple(part for part, _ in sealed),
                fields=FIELDS,
            )
            waiting.append(journal.append(draft, parts=[stored for _, stored in sealed], key=key, closes=True))
        await asyncio.gather(*waiting)
    await journal.close()
    return (sum(path.stat().st_size for path in directory.glob("*.jrn")) - HEADER_BYTES) / count


def database_bytes(data: Path, count: int) -> float:
    """Ship the journal of `data`; bytes of all tables, as inserted, for each of its `count` decisions."""
    directory = data / "journal" / "gateway-0"
    tail = SegmentTail(directory)
    waiting = list(tail.batches())
    tail.close()
    with Database.open(Profile(kind="chdb", database="bench", path=data / "clickhouse")) as database:
        migrate(database, now_ns=time.time_ns())
        ((empty,),) = database.rows(_STORED)
        shipper = Shipper(
            database,
            data / "ship",
            waiting[0].origin,
            header=lambda first: (directory / segment_name(first)).read_bytes()[:HEADER_BYTES],
            clock_ns=time.time_ns,
        )
        while waiting:
            shipped = shipper.ship(waiting)
            assert shipped is not None
            del waiting[: shipped.batches]
        ((full,),) = database.rows(_STORED)
    return float(full - empty) / count


def main() -> None:
    """All sizes, one JSON line each."""
    for size_kib in SIZES_KIB:
        count = 2_000 if size_kib < SIZES_KIB[-1] else 600
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            journal = asyncio.run(journal_bytes(data, size_kib * 1024, count))
            stored = database_bytes(data, count)
        gib_a_day = {str(rate): round(stored * rate * DAY_S / 2**30, 1) for rate in RATES}
        line = {"body_kib": size_kib, "journal_bytes": round(journal), "clickhouse_bytes": round(stored)}
        print(json.dumps({**line, "clickhouse_gib_a_day_at_rate": gib_a_day}), flush=True)


if __name__ == "__main__":
    main()
