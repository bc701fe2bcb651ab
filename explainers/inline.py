"""Explaining in this process: for tools and comparisons, where no keeper has to stay responsive."""

from __future__ import annotations

import asyncio
from pathlib import Path

from explainers.base import ExplanationRequest, ExplanationResult, failed
from explainers.errors import RefusedError
from explainers.explanation import explain
from explainers.features import encodable
from explainers.prepared import Shelf


class Inline:
    """Explains in a thread of this process, one request at a time; implements `base.Executor`.

    It gives the same bytes as a worker, but nothing protects this process from a model that crashes or hangs.
    """

    def __init__(self, data: Path) -> None:
        """An executor over the artifacts in `data`."""
        self._shelf = Shelf(data)
        self._one = asyncio.Lock()

    async def explain(self, request: ExplanationRequest) -> ExplanationResult:
        """Explain one decision; a decision that cannot be explained is a failed result."""
        try:
            encodable(request.features)
        except RefusedError as error:
            return failed(request, error.code, error.message)
        async with self._one:
            return await asyncio.to_thread(explain, request, self._shelf)

    async def close(self) -> None:
        """Nothing is left running between calls."""
