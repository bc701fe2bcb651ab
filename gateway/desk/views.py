"""What every page shares: the frame around it, the purpose form, and errors as pages. Thin."""

from typing import Any, Final

from aiohttp import web

from config.errors import AnswerableError
from gateway.desk.callers import Caller
from gateway.desk.rendering import assets_digest, environment, static_files
from gateway.desk.roles import PURPOSES, Right, Role

BROAD_GRANTS: Final = (
    "The database account may alter or delete entries (storage.allow_broad_grants): that would show, but nothing holds"
    " it back."
)
TITLES: Final = {
    401: "Please sign in",
    403: "Not for your role",
    404: "Not found",
    409: "Something else is on record",
    428: "Why do you look?",
    503: "Not available right now",
}


class Views:
    """Renders templates into answers."""

    def __init__(self, *, deployment: str, broad_grants: bool, trying: bool) -> None:
        self.static = static_files()
        self._templates = environment()
        self._assets = assets_digest(self.static)
        self._deployment = deployment
        self._warnings = [BROAD_GRANTS] if broad_grants else []
        self._trying = trying

    def page(
        self,
        request: web.Request,
        caller: Caller | None,
        template: str,
        *,
        status: int = 200,
        twin: str | None = None,
        both: bool = False,
        **values: Any,
    ) -> web.Response:
        """A whole page; `twin` is the address of the same as JSON."""
        frame = {
            "assets": self._assets,
            "twin": twin,
            "both": both,
            "viewer": caller.viewer if caller is not None else None,
            "csrf": caller.session.csrf if caller is not None and caller.session is not None else "",
            "deployment": self._deployment,
            "warnings": self._warnings,
            "nav": self._navigation(request, caller),
            "trying": self._trying,
        }
        html = self._templates.get_template(template).render(page=frame, **values)
        return web.Response(text=html, status=status, content_type="text/html")

    def purpose(
        self, request: web.Request, caller: Caller, *, onward: str, ticket: str = "", status: int = 200
    ) -> web.Response:
        """The form that asks, once per case, why somebody looks."""
        viewer = caller.viewer
        right = Right.LOOKUP if onward.startswith("/cases/") else Right.REASONS
        if onward.startswith("/holds"):
            right = Right.HOLD_ASK
        return self.page(
            request,
            caller,
            "purpose.html",
            status=status,
            onward=onward,
            ticket=ticket,
            needs_ticket=viewer.needs_ticket(right),
            purposes=PURPOSES,
        )

    def error(
        self, request: web.Request, caller: Caller | None, error: AnswerableError, *, request_id: str
    ) -> web.Response:
        """An error as a page, with its advice."""
        return self.page(
            request,
            caller,
            "error.html",
            status=error.status,
            title=TITLES.get(error.status, "That did not work"),
            message=error.message,
            advice=error.advice,
            code=error.code,
            request_id=request_id,
        )

    def _navigation(self, request: web.Request, caller: Caller | None) -> list[dict[str, Any]]:
        if caller is None:
            return []
        items = [("/", "Search")]
        if self._trying and Role.DEVELOPER in caller.viewer.roles:
            items.insert(0, ("/try", "Try"))
        if caller.viewer.may(Right.LIST):
            items.append(("/decisions", "Decisions"))
        if caller.viewer.may(Right.HOLD_ASK):
            items.append(("/holds", "Holds"))
        here = request.path
        return [
            {"href": href, "text": text, "current": here == href or (href != "/" and here.startswith(href))}
            for href, text in items
        ]
