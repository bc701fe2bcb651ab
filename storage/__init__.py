"""Evidence: what happened, in bytes that an outsider can check years later. README.md specifies every format.

The few words: an *entry* is a JSON line that states what happened, a *part* the sealed bytes it commits to; a
*journal* is one writer's append-only file in *segments*, written in *batches*, durable up to its *watermark*; a
*ledger* is the Merkle tree over a journal's entries, and a *receipt* what the caller holds against it.

The way data takes: a caller seals parts (``seal``) and drafts an entry (``entries``) → ``journal`` admits, appends and
awaits; its ``writer`` forms a ``batch`` of ``frames``, a thread has ``segmentfile`` write it and ``durable`` sync it,
the ``watermark`` moves → ``reading`` tails it → ``ledger`` recomputes and signs its tree, ``shipper`` brings it through
``clickhouse`` exactly once, ``projections`` derives typed rows → ``verify`` and ``audit`` check all of it again. After
a crash ``shard`` opens what is left by ``recovery`` or, where durable bytes are damaged, ``quarantine``.

Pure (no asyncio, os, clock, network): entries, frames, segment, batch, merkle, notes, tiles, seal, receipts, opening,
verify, protocols. One door per effect: ``durable`` alone syncs, ``clickhouse`` alone talks to the database.
"""
