-- The leaves of the log of logs, verbatim: what a deployment states about its shards. `origin` is the log's own name,
-- `shard` the origin that a leaf is about (empty: the log itself), `size` the size of its tree then.
CREATE TABLE IF NOT EXISTS log (
  origin LowCardinality(String),
  seq UInt64 CODEC(Delta, ZSTD(1)),
  ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
  kind LowCardinality(String),
  shard LowCardinality(String),
  size UInt64,
  entry String CODEC(ZSTD(3)),
  leaf FixedString(32) CODEC(NONE)
)
ENGINE = MergeTree
ORDER BY (origin, seq)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- What others said about a checkpoint: a witness's cosignature line (`kind` cosignature), or a time stamp token of an
-- RFC 3161 authority (`kind` timestamp). `name` is the witness's key name or the authority's configured name.
CREATE TABLE IF NOT EXISTS anchors (
  origin LowCardinality(String),
  size UInt64,
  kind LowCardinality(String),
  name LowCardinality(String),
  ts DateTime64(9, 'UTC'),
  bytes String CODEC(NONE)
)
ENGINE = MergeTree
ORDER BY (origin, size, kind, name)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;
