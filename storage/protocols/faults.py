"""What may go wrong in foreign bytes. Nothing here ever holds a value of the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REQUEST: Final = "request"
ANSWER: Final = "answer"


class Unreadable(Exception):  # noqa: N818 (a state of the bytes, recorded; nobody fails by it)
    """The one thing that reading foreign bytes may raise: `where` it went wrong, and `what`, in stable words."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what

    @property
    def fault(self) -> Fault:
        """The same as a value."""
        return Fault(self.where, self.what)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something could not be read: never a value of the call, so that it may be stored in the clear."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"
