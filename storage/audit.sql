-- What verification reads. Blocks by name, parameters bound by the server; every block is bounded by sequence numbers
-- or by a LIMIT. Two rows of a kind are enough to know that it is there twice.

-- name: entries
SELECT seq, toString(id), kind, tenant, route, toUnixTimestamp64Nano(ts), toString(decision), retention, entry, leaf,
  month
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
ORDER BY seq
LIMIT 2 BY seq

-- name: weight
SELECT sum(length(entry)), count(), uniqExact(seq)
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}

-- name: pieces
SELECT count()
FROM parts
WHERE origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}

-- name: following
SELECT count(), min(seq)
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}

-- name: many
SELECT seq, count()
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
GROUP BY seq
HAVING count() > 1
ORDER BY seq

-- name: chunks
SELECT toString(key_id), part, chunk, at, retention, length(bytes), SHA256(bytes), sha256
FROM parts
WHERE origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}
LIMIT 2 BY key_id, part, chunk
LIMIT {limit:UInt32}

-- name: chunks_by_key
SELECT toString(key_id), part, chunk, at, retention, length(bytes), SHA256(bytes), sha256
FROM parts
WHERE origin = {origin:String} AND key_id IN {keys:Array(UUID)}
LIMIT 2 BY key_id, part, chunk
LIMIT {limit:UInt32}

-- name: chunk_bytes
SELECT bytes
FROM parts
WHERE origin = {origin:String} AND key_id = {key:UUID} AND part = {part:UInt8}
  AND chunk >= {low:UInt32} AND chunk < {high:UInt32}
ORDER BY chunk

-- name: keys
SELECT toString(key_id), at, segment, counter, substring(wrapped, 1, 64) AS wrapped
FROM keys
WHERE origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}
LIMIT 2 BY key_id
LIMIT {limit:UInt32}

-- name: keys_by_id
SELECT toString(key_id), at, segment, counter, substring(wrapped, 1, 64) AS wrapped
FROM keys
WHERE origin = {origin:String} AND key_id IN {keys:Array(UUID)}
LIMIT 2 BY key_id
LIMIT {limit:UInt32}

-- name: headers
SELECT first_seq, substring(header, 1, 5000) AS header
FROM segment_keys
WHERE origin = {origin:String} AND first_seq >= {low:UInt64} AND first_seq < {high:UInt64}
ORDER BY first_seq
LIMIT 2 BY first_seq
LIMIT {limit:UInt32}

-- name: beyond
SELECT 'parts', max(at), count() FROM parts WHERE origin = {origin:String} AND at >= {end:UInt64}
UNION ALL
SELECT 'keys', max(at), count() FROM keys WHERE origin = {origin:String} AND at >= {end:UInt64}
UNION ALL
SELECT 'segment_keys', max(first_seq), count()
FROM segment_keys
WHERE origin = {origin:String} AND first_seq >= {end:UInt64}

-- name: checkpoints
SELECT size, count(), min(note), max(note), min(root), max(root),
  toUnixTimestamp64Nano(min(ts)), toUnixTimestamp64Nano(max(ts))
FROM checkpoints
WHERE origin = {origin:String} AND size > {size:Int64}
GROUP BY size
ORDER BY size
LIMIT {limit:UInt32}

-- name: published
SELECT max(size)
FROM checkpoints
WHERE origin = {origin:String}

-- name: tiles
SELECT n, hashes
FROM tiles
WHERE origin = {origin:String} AND level = 0 AND n >= {low:UInt64} AND n < {high:UInt64}
ORDER BY n
LIMIT 2 BY n

-- name: tile_counts
SELECT level, count(), uniqExact(n), max(n), countIf(length(hashes) != 8192)
FROM tiles
WHERE origin = {origin:String}
GROUP BY level
ORDER BY level

-- name: upper_tiles
SELECT n, hashes
FROM tiles
WHERE origin = {origin:String} AND level = {level:UInt8} AND n >= {low:UInt64} AND n < {high:UInt64}
ORDER BY n
LIMIT 2 BY n

-- name: stored
SELECT count(), max(seq)
FROM entries
WHERE origin = {origin:String}

-- name: erasures
SELECT origin, seq, entry
FROM entries
WHERE kind = 'erasure' AND (origin, seq) > ({origin:String}, {seq:Int64})
ORDER BY origin, seq
LIMIT 1 BY origin, seq
LIMIT {limit:UInt32}

-- name: known_origins
SELECT origin, max(seq)
FROM entries
GROUP BY origin
ORDER BY origin
LIMIT 10000

-- name: other_origins
SELECT DISTINCT origin
FROM (
  SELECT origin FROM checkpoints UNION ALL SELECT origin FROM segment_keys UNION ALL SELECT origin FROM tiles
  UNION ALL SELECT origin FROM keys UNION ALL SELECT origin FROM parts)
ORDER BY origin
LIMIT 10000

-- name: closings
SELECT count()
FROM entries
WHERE kind IN ('decision', 'call')

-- name: closed_twice
SELECT toString(decision), max((origin, seq)) AS place, count()
FROM entries
WHERE kind IN ('decision', 'call') AND cityHash64(decision) % {of:UInt32} = {turn:UInt32}
GROUP BY decision
HAVING count() > 1
ORDER BY place
LIMIT 101

-- name: deriving
SELECT seq, entry, leaf, toUnixTimestamp64Nano(ts)
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
  AND kind IN ('extraction', 'explanation', 'access', 'lifecycle')
ORDER BY seq
LIMIT {limit:UInt32}

-- name: coverable
SELECT seq, toString(id), leaf
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq <= {high:UInt64}
  AND kind = 'decision' AND tenant = {tenant:String} AND route = {route:String}
ORDER BY seq
LIMIT {limit:UInt32}

-- name: uncovered
SELECT tenant, route, max(seq)
FROM entries
WHERE origin = {origin:String} AND seq < {high:UInt64} AND kind = 'decision'
GROUP BY tenant, route
LIMIT 50000

-- name: logs
SELECT DISTINCT origin
FROM (SELECT origin FROM log UNION ALL SELECT origin FROM checkpoints UNION ALL SELECT origin FROM tiles)
WHERE endsWith(origin, '/log')
ORDER BY origin
LIMIT 10000

-- name: log_stored
SELECT count(), max(seq)
FROM log
WHERE origin = {origin:String}

-- name: log_leaves
SELECT seq, toUnixTimestamp64Nano(ts), kind, shard, size, entry, leaf
FROM log
WHERE origin = {origin:String} AND seq > {seq:Int64} AND seq < {end:UInt64}
ORDER BY seq
LIMIT 2 BY seq
LIMIT {limit:UInt32} WITH TIES

-- name: logged_notes
SELECT seq, entry
FROM log
WHERE origin = {origin:String} AND shard = {shard:String} AND kind = 'checkpoint' AND seq > {seq:Int64}
ORDER BY seq
LIMIT 1 BY seq
LIMIT {limit:UInt32}

-- name: signed
SELECT origin, toUnixTimestamp64Nano(min(ts)), toUnixTimestamp64Nano(max(ts))
FROM checkpoints
GROUP BY origin
LIMIT 10000

-- name: notable
SELECT origin, seq, leaf
FROM entries
WHERE kind IN ('erasure', 'prune') AND (origin, seq) > ({origin:String}, {seq:Int64})
ORDER BY origin, seq
LIMIT 1 BY origin, seq
LIMIT {limit:UInt32}
