"""What the keeper counts, for ``/metrics``; aggregated over the processes of a host by prometheus-client's files."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

SHIPPED: Final = Counter(
    "answerable_shipped_entries_total", "Entries that ClickHouse was read back to hold.", ["shard"]
)
UNSHIPPED: Final = Gauge(
    "answerable_unshipped_entries",
    "Entries that are durable here and not yet in ClickHouse.",
    ["shard"],
    multiprocess_mode="mostrecent",
)
JOURNAL_BYTES: Final = Gauge(
    "answerable_journal_bytes", "Bytes of a shard's segments.", ["shard"], multiprocess_mode="mostrecent"
)
DATABASE_UP: Final = Gauge(
    "answerable_clickhouse_up", "1 while ClickHouse answers the keeper.", multiprocess_mode="mostrecent"
)
EXTRACTED: Final = Counter("answerable_extracted_decisions_total", "Decisions in extraction entries.", ["result"])
EXPLANATIONS: Final = Counter("answerable_explanations_total", "Explanation entries.", ["state"])
EXPLANATIONS_WAITING: Final = Gauge(
    "answerable_explanations_waiting",
    "Decisions in memory whose explanation waits or runs.",
    multiprocess_mode="mostrecent",
)
EXPLANATION_SECONDS: Final = Gauge(
    "answerable_explanation_lag_seconds",
    "From the last explained decision to its durable explanation.",
    multiprocess_mode="mostrecent",
)
BROKEN: Final = Counter("answerable_shards_broken_total", "Shards in which damage was noticed.", ["shard"])
