"""Counts over ClickHouse, for people who ask how far everything is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from storage.clickhouse import SWEEP, Database
from storage.ids import is_uuid7, uuid7_ms

IDS_AT_ONCE: Final = 500
_DAY_NS: Final = 86_400_000_000_000
_NS_PER_MS: Final = 1_000_000

_TOTALS = """
SELECT
  (SELECT uniqExact(id) FROM entries WHERE kind = 'decision'),
  (SELECT countIf(JSONExtractUInt(entry, 'call', 'row') = 0) FROM entries WHERE kind IN ('decision', 'call')),
  (SELECT uniqExact(decision) FROM decisions),
  (SELECT uniqExactIf(decision, state = 'ready') FROM explanations),
  (SELECT uniqExactIf(decision, state = 'failed') FROM explanations)
"""
_SHIPPED = """
SELECT uniqExact(id), count() FROM entries
WHERE kind IN ('decision', 'call') AND id IN {ids:Array(UUID)} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')
"""
_EXPLAINED = """
SELECT uniqExactIf(decision, state = 'ready'), uniqExactIf(decision, state = 'failed') FROM explanations
WHERE decision IN {ids:Array(UUID)} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')
"""


def totals(database: Database) -> dict[str, int]:
    """Distinct decisions: shipped, with a typed row, explained, failed to be explained; and entries that close calls.

    Blocking.
    """
    ((shipped, closings, projected, explained, failed),) = database.rows(_TOTALS, caps=SWEEP)
    return {
        "shipped": shipped,
        "closings": closings,
        "projected": projected,
        "explained": explained,
        "failed": failed,
    }


def of_decisions(database: Database, ids: Sequence[str]) -> dict[str, int]:
    """How many of these decisions and calls are shipped, explained, failed to be explained. Blocking.

    `rows` are their closing entries: more than `shipped` if one stands there twice.
    """
    known = sorted({one for one in ids if is_uuid7(one)})
    found = {"asked": len(known), "shipped": 0, "rows": 0, "explained": 0, "failed": 0}
    for at in range(0, len(known), IDS_AT_ONCE):
        some = known[at : at + IDS_AT_ONCE]
        parameters: dict[str, Any] = {"ids": some, "low": max(0, uuid7_ms(some[0]) * _NS_PER_MS - _DAY_NS)}
        ((shipped, rows),) = database.rows(_SHIPPED, parameters)
        found["rows"] += rows
        ((explained, failed),) = database.rows(_EXPLAINED, parameters)
        found["shipped"] += shipped
        found["explained"] += explained
        found["failed"] += failed
    return found
