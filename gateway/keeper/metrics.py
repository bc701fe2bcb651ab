"""What the keeper counts; added up with the counts of the host's other processes by `gateway.exposition`.

Labels are shards, codes and states of ours: their number is bounded.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from gateway.series import PaceSeries
from gateway.states import States, gauge

STATES: Final = States("keeper")
PACE: Final = PaceSeries()

LAG_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0)

SHIPPED: Final = Counter("answerable_shipped_entries", "Entries that ClickHouse was read back to hold.", ["shard"])
UNSHIPPED: Final = gauge("unshipped_entries", "Entries that are durable here and not yet in ClickHouse.", ["shard"])
UNSHIPPED_BYTES: Final = gauge(
    "unshipped_bytes", "Bytes of journal that are durable here and not yet in ClickHouse.", ["shard"]
)
UNSHIPPED_AGE: Final = gauge(
    "unshipped_age_seconds", "How long the oldest entry that is not yet in ClickHouse has waited; 0: none.", ["shard"]
)
CHECKPOINT_AGE: Final = gauge(
    "checkpoint_age_seconds",
    "How long the oldest entry that no published checkpoint covers has waited; 0: none.",
    ["shard"],
)
DATABASE_UP: Final = gauge("clickhouse_up", "1 while ClickHouse answers the keeper.", [])
EXTRACTED: Final = Counter("answerable_extracted_decisions", "Decisions in extraction entries.", ["result"])
EXPLANATIONS: Final = Counter("answerable_explanations", "Explanation entries.", ["state"])
EXPLANATION_FAILURES: Final = Counter("answerable_explanation_failures", "Failed explanations.", ["code"])
EXPLANATIONS_WAITING: Final = gauge("explanations_waiting", "Decisions in memory whose explanation waits or runs.", [])
EXPLANATIONS_OLDEST: Final = gauge(
    "explanations_oldest_seconds", "Since the oldest decision whose explanation waits or runs; 0: none.", []
)
EXPLAINED_LAG: Final = Histogram(
    "answerable_explained_lag_seconds", "From a decision to its durable explanation.", buckets=LAG_BOUNDS_S
)
BROKEN: Final = Counter("answerable_shards_broken", "Damages that were noticed.", ["shard"])
LOG_SIZE: Final = gauge("log_leaves", "Leaves of the log of logs.", [])
LOG_SIGNED: Final = gauge("log_signed_seconds", "When the log of logs was last signed (Unix time).", [])
LOG_COSIGNED: Final = gauge("log_cosigned_leaves", "Leaves that as many witnesses cosigned as the quorum asks for.", [])
AUDITED: Final = Counter("answerable_audited_entries", "Entries that were re-read from ClickHouse.", ["span"])
AUDIT_FINISHED: Final = gauge("audit_finished_seconds", "When a pass of the audit last ended (Unix time).", ["span"])
AUDIT_FINDINGS: Final = gauge("audit_findings", "What in ClickHouse is not what was signed or derived from it.", [])
ANCHORS: Final = Counter(
    "answerable_anchors", "Cosignatures, time stamps and copies that were asked for.", ["name", "outcome"]
)
