-- Which call a decision is a row of, on routes with `batch: rows`: `call` is the id of the call's first row, `row` counts from
-- 0, `rows` is null where rows could not be told apart. A decision of any other call is the only row of its own.
ALTER TABLE decisions
  ADD COLUMN IF NOT EXISTS call UUID DEFAULT decision,
  ADD COLUMN IF NOT EXISTS row UInt32 DEFAULT 0,
  ADD COLUMN IF NOT EXISTS rows Nullable(UInt32) DEFAULT 1,
  ADD INDEX IF NOT EXISTS by_call call TYPE bloom_filter(0.001) GRANULARITY 4;
