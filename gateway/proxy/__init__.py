"""The data plane: one call in, one model asked, one durable entry, one answer out.

The words: a *lane* is a route ready for the hot path; a *call* is a request on its way to a model and what came
back; a *recording* is a call's evidence in the making; an *answer* is how a call ends for its caller; *holding* is
the part of a stream that may not leave yet.

The way of a call: `server` (bytes to requests) → `handler` → `callers`, `heads`, `routes`, `lanes` →
`recording.admit` → `calling` over `pool` and `upstream` → `answers` or `streams`, each closing the recording before
the answer ends. Pure are `headers`, `answerheads`, `routes`, `exchange` and `holding`. Nothing here imports numbers,
models or a database.

How the way is kept short: what repeats is worked out once and kept by its bytes (heads, routes, keys, entries' forms);
a call wakes its task three times (request, answer, durable) and makes no other; the journal makes one batch, one
signature and one sync for all calls that end within a few turns of the loop.
"""
