"""What the database already holds of an origin: taking up shipping where the ship log does not say what was sent.

A ship log can be lost, or restored from an older copy, while the rows that it told of are there. Then nothing is sent
before it was read back; and since a seal fixes the month of its rows, the months are those under which they lie.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import orjson

from storage.batch import Batch
from storage.clickhouse import SWEEP, Database
from storage.freight import classes


def stored_end(database: Database, origin: str, since: int) -> int:
    """One past the highest number from `since` on at which there is an entry, part or key; `since` where none is."""
    end = since
    for table, place in (("entries", "seq"), ("parts", "at"), ("keys", "at")):
        ((count, last),) = database.rows(
            f"SELECT count(), max({place}) FROM {table}"  # noqa: S608 (our own words only)
            f" WHERE origin = {{origin:String}} AND {place} >= {{since:UInt64}}",
            {"origin": origin, "since": since},
            caps=SWEEP,
        )
        if count:
            end = max(end, last + 1)
    return end


def is_covered(database: Database, origin: str, low: int, high: int) -> bool:
    """Whether as many entries as there are numbers in [low, high) stand there, and add up to them."""
    ((count, total),) = database.rows(
        "SELECT count(), sum(seq) FROM entries"
        " WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}",
        {"origin": origin, "low": low, "high": high},
        caps=SWEEP,
    )
    return (count, total) == (high - low, (high - low) * (low + high - 1) // 2 % 2**64)  # a sum of UInt64 wraps


def of_one_month(database: Database, origin: str, batches: Sequence[Batch]) -> tuple[Sequence[Batch], int | None]:
    """The longest prefix of `batches` whose rows lie in one month, and that month; None: nothing of them is there."""
    where = {"origin": origin, "low": batches[0].first, "high": batches[-1].first + batches[-1].count + 1}
    entries = dict(
        database.rows(
            "SELECT seq, month FROM entries"
            " WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}",
            where,
            caps=SWEEP,
        )
    )
    parts = {
        tuple(key): month
        for *key, month in database.rows(
            "SELECT toString(key_id), part, chunk, month FROM parts"
            " WHERE origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}",
            where,
            caps=SWEEP,
        )
    }
    shared: int | None = None
    for index, batch in enumerate(batches):
        months = {entries.get(record.seq) for record in batch.records}
        months |= {parts.get((part.key_id, part.index, part.chunk)) for part in batch.parts}
        month = max((one for one in months if one is not None), default=None)
        if month is not None and shared is not None and month != shared:
            return batches[:index], shared
        shared = shared or month
    return batches, shared


def begun_classes(database: Database, origin: str, keys: Collection[str], below: int) -> dict[str, str]:
    """The retention classes that begin entries below a number gave to `keys`; those of other keys are not among them.

    A key is stored under the batch that carried it, at or before the entry that names it.
    """
    found = database.rows(
        """SELECT entry FROM entries
        WHERE origin = {origin:String} AND kind = 'begin' AND seq < {below:UInt64}
          AND seq >= (SELECT if(count() = 0, {below:UInt64}, min(at)) FROM keys
            WHERE origin = {origin:String} AND key_id IN {keys:Array(UUID)})
          AND hasAny({keys:Array(String)}, arrayPushBack(
            arrayMap(part -> JSONExtractString(part, 'key'), JSONExtractArrayRaw(entry, 'parts')),
            JSONExtractString(entry, 'key')))""",
        {"origin": origin, "keys": sorted(keys), "below": below},
        caps=SWEEP,
    )
    told: Mapping[str, str] = {}
    for (entry,) in found:
        told = {**told, **classes(orjson.loads(entry))}
    return {key: told[key] for key in sorted(keys) if key in told}
