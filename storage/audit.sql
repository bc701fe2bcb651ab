-- What verification reads. Blocks by name, parameters bound by the server; every block is bounded by sequence numbers.

-- name: entries
SELECT seq, toString(id), kind, tenant, route, toUnixTimestamp64Nano(ts), toString(decision), retention, entry, leaf
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
ORDER BY seq

-- name: entries_bytes
SELECT sum(length(entry))
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}

-- name: chunks
SELECT toString(key_id), part, chunk, length(bytes), SHA256(bytes), sha256
FROM parts
WHERE origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}

-- name: chunks_by_key
SELECT toString(key_id), part, chunk, length(bytes), SHA256(bytes), sha256
FROM parts
WHERE origin = {origin:String} AND key_id IN {keys:Array(UUID)}

-- name: chunk_bytes
SELECT bytes
FROM parts
WHERE origin = {origin:String} AND key_id = {key:UUID} AND part = {part:UInt8}
  AND chunk >= {low:UInt32} AND chunk < {high:UInt32}
ORDER BY chunk

-- name: keys
SELECT toString(key_id), segment, SHA256(wrapped)
FROM keys
WHERE origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}

-- name: keys_by_id
SELECT toString(key_id), segment, SHA256(wrapped)
FROM keys
WHERE origin = {origin:String} AND key_id IN {keys:Array(UUID)}

-- name: headers
SELECT first_seq, header
FROM segment_keys
WHERE origin = {origin:String}
ORDER BY first_seq

-- name: checkpoints
SELECT size, note
FROM checkpoints
WHERE origin = {origin:String} AND (size, note) > ({size:UInt64}, {note:String})
ORDER BY size, note
LIMIT {limit:UInt32}

-- name: tiles
SELECT n, hashes
FROM tiles
WHERE origin = {origin:String} AND level = 0 AND n >= {low:UInt64} AND n < {high:UInt64}
ORDER BY n

-- name: erasures
SELECT entry
FROM entries
WHERE kind = 'erasure'
ORDER BY origin, seq

-- name: known_origins
SELECT origin, max(seq) + 1
FROM entries
GROUP BY origin

-- name: deriving
SELECT seq, entry, leaf
FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
  AND kind IN ('extraction', 'explanation', 'access', 'lifecycle')
ORDER BY seq
LIMIT {limit:UInt32}
