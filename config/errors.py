"""The one root of every error that a person may read.

An error has a stable ``code`` (for programs), an HTTP ``status`` (for callers), a message that names what
and where, and one sentence of ``advice``. A subclass exists only where a caller acts differently.
"""

from __future__ import annotations


class AnswerableError(Exception):
    """An operating error with a code, a status and advice; never a broken invariant."""

    code: str = "internal"
    status: int = 500
    advice: str = "Look the request id up in the gateway's log."

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, advice: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        if advice is not None:
            self.advice = advice

    def as_json(self, request_id: str) -> dict[str, dict[str, str]]:
        """The one error shape of every endpoint: ``{"error": {code, message, advice, request_id}}``."""
        return {"error": {"code": self.code, "message": self.message, "advice": self.advice, "request_id": request_id}}


class ConfigError(AnswerableError):
    """A configuration or registration file says something that cannot hold; commands exit 2 on it."""

    code = "config_invalid"
    status = 400
    advice = "Mend the file and run `answerable config check FILE`."
