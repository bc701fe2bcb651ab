"""Protocols: pure adapters from the bytes of a call to what was asked, what was answered, and what it means.

The words: an *exchange* is one call as parsed values; it has *rows*, mostly one; a row has two *sides*, asked and
answered; a side has a value and, where a language model writes, *replies*. A *reading* is one of the four ways to find
a value in a side; an *extractor* is all that a route declares, and has a digest, so that a changed one makes new
extraction entries instead of rewriting what was extracted before.

The way of the data: bytes → `documents` (bounded JSON) or `sse` (events) → one *adapter* (`generic`, `openai`,
`anthropic`, `inference_v2`, `kserve_v1`, `mlflow`) → `reading` (rows matched) → `readings` → `extraction`.

Nothing here guesses: what cannot be found is absent, and why is recorded. Foreign bytes raise `Unreadable` alone, or,
above `reading`, nothing. Each adapter also says which event ends a stream: `terminals`.
"""

from storage.protocols.extraction import Extracted, Extractor, ExtractSpec, extract, spec_of

__all__ = ["ExtractSpec", "Extracted", "Extractor", "extract", "spec_of"]
