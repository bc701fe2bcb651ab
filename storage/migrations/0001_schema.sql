-- The first schema. An acknowledged insert is not durable by default: the settings at each table make ClickHouse sync
-- parts and their directories, also after a merge, and keep what a merge replaced until its result is surely on disk.
-- `entries` is a plain MergeTree and never a Replacing one: merges would destroy the evidence of a replaced row.
-- Small granules where rows are long and read one by one: a granule is what reading one row costs.

-- Every entry, verbatim. `month` (YYYYMM) is the month of shipping and never decreases; `decision` is zero where none.
CREATE TABLE IF NOT EXISTS entries (
  origin LowCardinality(String),
  seq UInt64 CODEC(Delta, ZSTD(1)),
  id UUID,
  kind LowCardinality(String),
  tenant LowCardinality(String),
  route LowCardinality(String),
  ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
  retention LowCardinality(String),
  month UInt32,
  decision UUID,
  entry String CODEC(ZSTD(3)),
  leaf FixedString(32) CODEC(NONE),
  INDEX by_id id TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_decision decision TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_ts ts TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY (retention, month)
ORDER BY (origin, seq)
SETTINGS
  index_granularity = 512, index_granularity_bytes = 1048576,
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- Sealed parts, chunk by chunk. `at` is the first sequence number of the batch that carried them.
CREATE TABLE IF NOT EXISTS parts (
  origin LowCardinality(String),
  at UInt64,
  key_id UUID,
  part UInt8,
  chunk UInt32,
  retention LowCardinality(String),
  month UInt32,
  bytes String CODEC(NONE),
  sha256 FixedString(32) CODEC(NONE),
  INDEX by_key key_id TYPE bloom_filter(0.001) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY (retention, month)
ORDER BY (origin, at, key_id, part, chunk)
SETTINGS
  index_granularity = 256, index_granularity_bytes = 1048576,
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- Wrapped keys of parts; deleting a row here is what erases. `segment` names the row of segment_keys that unwraps it.
CREATE TABLE IF NOT EXISTS keys (
  origin LowCardinality(String),
  at UInt64,
  key_id UUID,
  counter UInt64,
  wrapped String CODEC(NONE),
  segment UInt64,
  INDEX by_key key_id TYPE bloom_filter(0.001) GRANULARITY 4
)
ENGINE = MergeTree
ORDER BY (origin, at, key_id)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- The header of each journal segment: the writer's public key, its voucher and the sealed segment key.
CREATE TABLE IF NOT EXISTS segment_keys (
  origin LowCardinality(String),
  first_seq UInt64,
  header String CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY (origin, first_seq)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- Signed checkpoints (C2SP tlog-checkpoint), the note verbatim.
CREATE TABLE IF NOT EXISTS checkpoints (
  origin LowCardinality(String),
  size UInt64,
  root FixedString(32),
  note String,
  ts DateTime64(9, 'UTC')
)
ENGINE = MergeTree
ORDER BY (origin, size)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- Full tiles (C2SP tlog-tiles): 256 hashes of 32 bytes each. Partial tiles are made from the leaves.
CREATE TABLE IF NOT EXISTS tiles (
  origin LowCardinality(String),
  level UInt8,
  n UInt64,
  hashes String CODEC(NONE)
)
ENGINE = MergeTree
ORDER BY (origin, level, n)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- From here on: projections. They may be dropped and rebuilt from the tables above.

-- One row a decision: its entry and the row that an extraction entry holds for it.
CREATE TABLE IF NOT EXISTS decisions (
  decision UUID,
  ts DateTime64(9, 'UTC'),
  tenant LowCardinality(String),
  route LowCardinality(String),
  app LowCardinality(String),
  `case` String,
  subject String,
  purpose LowCardinality(String),
  corrects String,
  label LowCardinality(String),
  favourable Nullable(UInt8),
  score Nullable(Float64),
  extraction_error String,
  extractor LowCardinality(String),
  model_name LowCardinality(String),
  model_version LowCardinality(String),
  model_digest LowCardinality(String),
  model_source LowCardinality(String),
  status UInt16,
  error LowCardinality(String),
  mode LowCardinality(String),
  stream LowCardinality(String),
  upstream_us UInt64,
  total_us UInt64,
  config LowCardinality(String),
  retention LowCardinality(String),
  origin LowCardinality(String),
  seq UInt64,
  leaf FixedString(32) CODEC(NONE),
  extraction_origin LowCardinality(String),
  extraction_seq UInt64,
  INDEX by_decision decision TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_case `case` TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_subject subject TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_corrects corrects TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_extraction extraction_seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (tenant, route, ts, decision)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- One row an explanation, failed ones included.
CREATE TABLE IF NOT EXISTS explanations (
  id UUID,
  decision UUID,
  ts DateTime64(9, 'UTC'),
  tenant LowCardinality(String),
  route LowCardinality(String),
  key String,
  state LowCardinality(String),
  error LowCardinality(String),
  method LowCardinality(String),
  verdict LowCardinality(String),
  binding LowCardinality(String),
  notice LowCardinality(String),
  codes Array(LowCardinality(String)),
  model_digest LowCardinality(String),
  origin LowCardinality(String),
  seq UInt64,
  leaf FixedString(32) CODEC(NONE),
  INDEX by_decision decision TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_seq seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (tenant, route, ts, id)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- Who looked at what, and why.
CREATE TABLE IF NOT EXISTS accesses (
  id UUID,
  decision UUID,
  ts DateTime64(9, 'UTC'),
  tenant LowCardinality(String),
  route LowCardinality(String),
  actor String,
  role LowCardinality(String),
  action LowCardinality(String),
  purpose LowCardinality(String),
  ticket String,
  `case` String,
  subject String,
  outcome LowCardinality(String),
  reason LowCardinality(String),
  rows UInt32,
  matter String,
  origin LowCardinality(String),
  seq UInt64,
  leaf FixedString(32) CODEC(NONE),
  INDEX by_decision decision TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_case `case` TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_subject subject TYPE bloom_filter(0.001) GRANULARITY 4,
  INDEX by_seq seq TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (tenant, ts, id)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;

-- What was activated, registered or changed.
CREATE TABLE IF NOT EXISTS lifecycle (
  id UUID,
  ts DateTime64(9, 'UTC'),
  tenant LowCardinality(String),
  route LowCardinality(String),
  actor String,
  event LowCardinality(String),
  object LowCardinality(String),
  name String,
  version String,
  digest String,
  origin LowCardinality(String),
  seq UInt64,
  leaf FixedString(32) CODEC(NONE)
)
ENGINE = MergeTree
ORDER BY (tenant, ts, id)
SETTINGS
  fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000;
