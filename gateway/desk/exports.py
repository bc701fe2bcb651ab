"""Evidence bundles that are being made, or lie ready for whoever asked for them: a job each, gone after an hour.

The look is on record before a job begins. A job belongs to the viewer who started it; to anybody else it is not there.
What lies here when the process ends is deleted by the next one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from config.errors import AnswerableError
from gateway.desk import words
from gateway.desk.context import Context
from gateway.desk.errors import NotFoundError
from gateway.desk.roles import Viewer
from storage.bundles import Wanted

RUNNING_MAX: Final = 2  # each reads entries and makes proofs as fast as it can
KEPT_MAX: Final = 20
LIFE_NS: Final = 3_600 * 1_000_000_000

_log = structlog.get_logger(__name__)


class ExportsBusyError(AnswerableError):
    """As many bundles as may be are being made, or lie here."""

    code = "evidence_busy"
    status = 503
    advice = "Try again when one is done; bundles lie ready for an hour."


@dataclass(slots=True)
class Export:
    """One job; `state` is making, ready or failed."""

    id: str
    owner: tuple[str, str]  # tenant and actor
    path: Path
    begun_ns: int
    state: str = "making"
    progress: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] | None = None
    error: AnswerableError | None = None
    task: asyncio.Task[None] | None = None

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        links = {"self": f"/v1/evidence/{self.id}"}
        if self.state == "ready":
            links["file"] = f"/v1/evidence/{self.id}/file"
        return {
            "id": self.id,
            "state": self.state,
            "progress": self.progress,
            "made": self.made,
            "error": None if self.error is None else self.error.as_json(self.id)["error"],
            "expires": words.iso(self.begun_ns + LIFE_NS),
            "links": links,
        }


class Exports:
    """All jobs of one desk; used from its event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs: dict[str, Export] = {}

    def start(self, viewer: Viewer, wanted: Wanted) -> Export:
        """Begin to make a bundle.

        Raises:
            ExportsBusyError: too many are being made, or lie here.
        """
        self._expire()
        running = sum(job.state == "making" for job in self._jobs.values())
        if running >= RUNNING_MAX or len(self._jobs) >= KEPT_MAX:
            raise ExportsBusyError(f"{running} bundles are being made, {len(self._jobs)} are kept")
        identifier = self._context.random(16).hex()
        path = self._context.exports / f"{identifier}.zip"
        job = Export(identifier, (viewer.tenant, viewer.actor), path, self._context.now_ns())
        self._jobs[identifier] = job
        job.task = asyncio.create_task(self._make(job, wanted), name="evidence")
        return job

    def find(self, viewer: Viewer, identifier: str) -> Export:
        """The viewer's own job.

        Raises:
            NotFoundError: there is none, or it is somebody else's, or it has expired.
        """
        self._expire()
        job = self._jobs.get(identifier)
        if job is None or job.owner != (viewer.tenant, viewer.actor):
            raise NotFoundError("no such bundle of yours")
        return job

    async def close(self) -> None:
        """Give up what is being made, and delete all."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in self._jobs.values():
            job.path.unlink(missing_ok=True)
        self._jobs.clear()

    async def _make(self, job: Export, wanted: Wanted) -> None:
        def tell(progress: dict[str, object]) -> None:
            job.progress = dict(progress)

        try:
            job.made = (await asyncio.to_thread(self._context.bundle, wanted, job.path, tell)).as_json()
            job.state = "ready"
        except AnswerableError as error:
            job.state, job.error = "failed", error
        except OSError as error:
            _log.error("evidence_unwritable", problem=str(error))
            job.state = "failed"
            job.error = AnswerableError("the bundle could not be written", advice="Ask whoever runs this host.")

    def _expire(self) -> None:
        now_ns = self._context.now_ns()
        for job in list(self._jobs.values()):
            if job.state != "making" and now_ns - job.begun_ns > LIFE_NS:
                job.path.unlink(missing_ok=True)
                del self._jobs[job.id]
