-- What people's questions are answered from. Each block is read by queries.py under its name.
-- Every block has a key or a time bound and ends in a LIMIT; pages continue after a key, never at an offset.
-- Parameters are bound by the server. An optional one that is empty restricts nothing.
-- A later extraction of the same decision supersedes an earlier one: the newest row counts, by the keeper's epoch and the
-- entry's number in it, never by a clock. So does the newest explanation.

-- name: decision
SELECT decision, ts, tenant, route, app, `case`, subject, purpose, corrects, label, favourable, score,
  extraction_error, extractor, model_name, model_version, model_digest, model_source, status, error, mode, stream,
  upstream_us, total_us, config, retention, origin, seq, leaf, extraction_origin, extraction_seq, call,
  row, rows
FROM decisions
WHERE decision = {decision:UUID}
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
ORDER BY toUInt64OrZero(substringIndex(extraction_origin, '/', -1)) DESC, extraction_seq DESC
LIMIT 1

-- Candidates: rows that fit, each the newest of its decision among those that fit. Whether it is the newest of all, and
-- whether the explanation that fits is, `newest` and `explanation_states` tell of the few that a page shows.
-- name: page
SELECT decision, ts, tenant, route, app, `case`, subject, purpose, corrects, label, favourable, score,
  extraction_error, extractor, model_name, model_version, model_digest, model_source, status, error, mode, stream,
  upstream_us, total_us, config, retention, origin, seq, leaf, extraction_origin, extraction_seq, call,
  row, rows
FROM decisions
WHERE tenant = {tenant:String}
  AND (empty({routes:Array(String)}) OR has({routes:Array(String)}, route))
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
  AND (empty({labels:Array(String)}) OR has({labels:Array(String)}, label))
  AND (empty({cases:Array(String)}) OR `case` IN {cases:Array(String)})
  AND (empty({subjects:Array(String)}) OR subject IN {subjects:Array(String)})
  AND (empty({corrects:String}) OR corrects = {corrects:String})
  AND ({call:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR call = {call:UUID})
  AND (empty({ids:Array(UUID)}) OR decision IN {ids:Array(UUID)})
  AND (empty({tail:String}) OR endsWith(toString(decision), {tail:String}))
  AND (empty({model_version:String}) OR model_version = {model_version:String})
  AND ({favourable:Int8} < 0 OR favourable = {favourable:Int8})
  AND (empty({reason:String}) OR decision IN (
    SELECT decision FROM explanations
    WHERE tenant = {tenant:String} AND has(codes, {reason:String})
      AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')))
  AND ({state:String} NOT IN ('ready', 'failed') OR decision IN (
    SELECT decision FROM explanations
    WHERE tenant = {tenant:String} AND state = {state:String}
      AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')))
  AND ({state:String} != 'none' OR decision NOT IN (
    SELECT decision FROM explanations
    WHERE tenant = {tenant:String} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')))
  AND (ts, decision) < (fromUnixTimestamp64Nano({after_ts:Int64}, 'UTC'), {after:UUID})
ORDER BY ts DESC, decision DESC, toUInt64OrZero(substringIndex(extraction_origin, '/', -1)) DESC, extraction_seq DESC
LIMIT 1 BY decision
LIMIT {limit:UInt32}

-- name: newest
SELECT decision, max((toUInt64OrZero(substringIndex(extraction_origin, '/', -1)), extraction_seq))
FROM decisions
WHERE decision IN {decisions:Array(UUID)} AND tenant = {tenant:String}
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Nano({high:Int64}, 'UTC')
GROUP BY decision
LIMIT 5000

-- name: explanation_states
SELECT decision, state, verdict, codes
FROM explanations
WHERE decision IN {decisions:Array(UUID)} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')
ORDER BY decision, toUInt64OrZero(substringIndex(origin, '/', -1)) DESC, seq DESC
LIMIT 1 BY decision
LIMIT 5000

-- name: explanations
SELECT id, decision, ts, tenant, route, key, state, error, method, verdict, binding, notice, codes, model_digest,
  origin, seq, leaf
FROM explanations
WHERE decision = {decision:UUID} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')
ORDER BY toUInt64OrZero(substringIndex(origin, '/', -1)) DESC, seq DESC
LIMIT {limit:UInt32}

-- name: accesses
SELECT id, decision, ts, tenant, route, actor, role, action, purpose, ticket, `case`, subject, outcome, reason, rows,
  matter, origin, seq, leaf
FROM accesses
WHERE tenant = {tenant:String}
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
  AND ({decision:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR decision = {decision:UUID})
  AND (empty({cases:Array(String)}) OR `case` IN {cases:Array(String)})
  AND (empty({subjects:Array(String)}) OR subject IN {subjects:Array(String)})
  AND (empty({actor:String}) OR actor = {actor:String})
ORDER BY ts DESC, id DESC
LIMIT {limit:UInt32}

-- name: lifecycle
SELECT id, ts, tenant, route, actor, event, object, name, version, digest, origin, seq, leaf
FROM lifecycle
WHERE ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
  AND (empty({event:String}) OR event = {event:String})
ORDER BY ts DESC, id DESC
LIMIT {limit:UInt32}

-- name: entry
SELECT origin, seq, id, kind, ts, entry, leaf
FROM entries
WHERE origin = {origin:String} AND seq = {seq:UInt64}
LIMIT 1

-- name: entry_of_decision
SELECT origin, seq, id, kind, ts, entry, leaf
FROM entries
WHERE id = {decision:UUID} AND kind IN ('decision', 'call')
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
LIMIT 1

-- name: entries_about_decision
SELECT origin, seq, id, kind, ts, entry, leaf
FROM entries
WHERE decision = {decision:UUID} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')
ORDER BY ts, origin, seq
LIMIT {limit:UInt32}

-- name: entries_about_decisions
SELECT origin, seq, id, kind, ts, entry, leaf
FROM entries
WHERE decision IN {decisions:Array(UUID)} AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC')
ORDER BY origin, seq
LIMIT {limit:UInt32}

-- name: latest_entries
SELECT origin, seq, id, kind, ts, entry, leaf
FROM entries
WHERE kind IN {kinds:Array(String)} AND tenant = {tenant:String}
  AND (empty({routes:Array(String)}) OR has({routes:Array(String)}, route))
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
ORDER BY ts DESC, origin DESC, seq DESC
LIMIT {limit:UInt32}

-- name: statements
SELECT origin, seq, id, kind, ts, entry, leaf
FROM entries
WHERE kind IN {kinds:Array(String)} AND tenant = {tenant:String}
  AND (toUnixTimestamp64Nano(ts), origin, seq) > ({ts:Int64}, {origin:String}, {seq:UInt64})
ORDER BY ts, origin, seq
LIMIT {limit:UInt32}

-- name: shipped
SELECT if(count() = 0, 0, max(seq) + 1)
FROM entries
WHERE origin = {origin:String}
LIMIT 1

-- name: parts
SELECT toString(key_id), part, chunk, bytes
FROM parts
WHERE origin = {origin:String} AND at <= {seq:UInt64} AND key_id IN {keys:Array(UUID)}
ORDER BY key_id, part, chunk
LIMIT {limit:UInt32}

-- name: keys
SELECT toString(key_id), counter, wrapped, segment
FROM keys
WHERE origin = {origin:String} AND at <= {seq:UInt64} AND key_id IN {keys:Array(UUID)}
LIMIT {limit:UInt32}

-- name: segment_header
SELECT header
FROM segment_keys
WHERE origin = {origin:String} AND first_seq = {first_seq:UInt64}
LIMIT 1

-- name: checkpoint_covering
SELECT size, root, note, ts
FROM checkpoints
WHERE origin = {origin:String} AND size > {seq:UInt64}
ORDER BY size DESC
LIMIT 1

-- name: origins
SELECT origin, count(), min(seq), max(seq) + 1
FROM entries
GROUP BY origin
ORDER BY origin
LIMIT 10000

-- name: counts_by_kind
SELECT kind, count()
FROM entries
WHERE ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
GROUP BY kind
ORDER BY kind
LIMIT 100

-- name: decisions_of
SELECT uniqExact(decision)
FROM decisions
WHERE tenant = {tenant:String} AND route = {route:String}
  AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
LIMIT 1

-- name: counts_by_state
SELECT state, uniqExact(decision)
FROM explanations
WHERE ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')
GROUP BY state
ORDER BY state
LIMIT 100
