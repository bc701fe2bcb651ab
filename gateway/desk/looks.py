"""A look at records, or a refused attempt: one access entry each, durable before anything is returned. Thin."""

from collections.abc import Awaitable, Callable
from typing import Final, Self

from config.errors import AnswerableError
from gateway.desk.context import Access, Outcome
from gateway.desk.errors import ForbiddenError, NotFoundError
from gateway.desk.roles import Viewer
from gateway.desk.sessions import Grant

UNSTATED: Final = "unstated"  # the purpose of an attempt that was refused before one was stated

Record = Callable[[Access], Awaitable[None]]


class Look:
    """One attempt to see something: leaves exactly one access entry, granted or refused."""

    def __init__(self, record: Record, viewer: Viewer, action: str, stated: Grant | None, **about: str | None) -> None:
        self.stated = stated
        self._record = record
        self._viewer = viewer
        self._action = action
        self._about: dict[str, str | None] = {"decision": None, "route": None, "case": None, "subject": None, **about}
        self._filter: str | None = None
        self._written = False

    def about(
        self,
        *,
        case: str | None = None,
        subject: str | None = None,
        route: str | None = None,
        decision: str | None = None,
        filter_digest: str | None = None,
    ) -> None:
        """Say what the look concerns, as it becomes known."""
        self._about |= {"case": case, "subject": subject}
        self._about["route"] = route or self._about["route"]
        self._about["decision"] = decision or self._about["decision"]
        self._filter = filter_digest or self._filter

    async def granted(self, *, rows: int) -> None:
        """Record that the look was granted; true on return: the entry is durable, the rows may go out."""
        await self._write(Outcome.GRANTED, None, rows)
        self._written = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        refused = isinstance(error, ForbiddenError | NotFoundError)
        if refused and not self._written and isinstance(error, AnswerableError):
            await self._write(Outcome.REFUSED, error.code, 0)

    async def _write(self, outcome: Outcome, reason: str | None, rows: int) -> None:
        viewer, grant = self._viewer, self.stated
        await self._record(
            Access(
                tenant=viewer.tenant,
                actor=viewer.actor,
                role=",".join(sorted(role.value for role in viewer.roles)),
                action=self._action,
                purpose=grant.purpose if grant is not None else UNSTATED,
                ticket=grant.ticket if grant is not None else None,
                outcome=outcome,
                reason=reason,
                filter=self._filter,
                rows=rows,
                matter=viewer.matter.id if viewer.matter is not None else None,
                decision=self._about["decision"],
                route=self._about["route"],
                case=self._about["case"],
                subject=self._about["subject"],
            )
        )
