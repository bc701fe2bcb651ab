"""What a worker's journal holds, read as the keeper reads it: entries, parts opened, receipts checked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.proxy.app import Worker
from storage import receipts, watermark
from storage.entries import Part
from storage.keys import Keyring
from storage.reading import SegmentTail, read_header
from storage.recovery import segments_of
from storage.seal import open_part
from storage.segment import segment_name
from tests.support.workers import Got


@dataclass
class Evidence:
    """Everything durable of one shard at one moment."""

    directory: Path
    data: Path

    @classmethod
    def of(cls, worker: Worker) -> Evidence:
        data = worker._configuration.data
        return cls(data / "journal" / "gateway-0", data)

    def batches(self) -> list[Any]:
        tail = SegmentTail(self.directory)
        try:
            return list(tail.batches())
        finally:
            tail.close()

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        entries = [orjson.loads(record.entry) for batch in self.batches() for record in batch.records]
        return [entry for entry in entries if not kinds or entry["kind"] in kinds]

    def calls(self) -> list[dict[str, Any]]:
        return self.entries("begin", "decision", "call")

    def part(self, entry: dict[str, Any], name: str) -> bytes | None:
        """The plaintext of a part that an entry states, every commitment checked; None where it states none."""
        stated = next((part for part in entry["parts"] if part["name"] == name), None)
        if stated is None:
            return None
        batches = self.batches()
        key = next(key for batch in batches for key in batch.keys if key.key_id == stated["key"])
        stored = [
            part
            for batch in batches
            for part in batch.parts
            if part.key_id == stated["key"] and part.index == stated["index"]
        ]
        assert [part.chunk for part in stored] == list(range(stated["chunks"])), "each chunk is stored once, in order"
        header = read_header(self.directory / segment_name(key.segment))
        dek = Keyring.open(self.data).part_key(header, key)
        return open_part(Part.from_json(stated), [part.data for part in stored], dek, entry["origin"])

    def check_receipt(self, got: Got, kind: str) -> dict[str, Any]:
        """The entry that an answer's receipt names: signed, at its place, of this kind, and about its Decision-Id."""
        receipt = receipts.parse(got.header("Decision-Receipt") or "")
        first = max(seq for seq in segments_of(self.directory) if seq <= receipt.seq)
        receipt.verify(read_header(self.directory / segment_name(first)).process_key)
        (batch,) = [batch for batch in self.batches() if batch.first <= receipt.seq < batch.first + batch.count]
        assert (batch.commit.root, batch.commit.size) == (receipt.root, receipt.size)
        assert batch.commit.signature == receipt.signature
        entry = orjson.loads(batch.records[receipt.seq - batch.first].entry)
        assert entry["decision"] == got.header("Decision-Id")
        assert entry["kind"] == kind
        return dict(entry)


def balanced(worker: Worker) -> None:
    """Invariant 3: accepted = closed + open + lost, with nothing open any more; good after the worker's end too."""
    mark = watermark.read(Evidence.of(worker).directory / watermark.NAME)
    assert mark is not None
    counters = mark.counters
    assert counters.accepted == counters.closed + counters.lost, counters


async def settled(worker: Worker, closed: int, timeout_s: float = 10) -> None:
    """Wait until so many calls are closed."""
    async with asyncio.timeout(timeout_s):
        while worker.journal.counters.closed < closed:
            await asyncio.sleep(0.005)
