"""Signing in and out: a one-time code, or a bearer token of a configured issuer, exchanged by POST for a session.

`GET /signin/<code>` only shows a button: link previews and scanners that fetch addresses use no code up. Neither code
nor token ever stands in a log, and a token never in an address.
"""

from aiohttp import web

from gateway.desk.callers import COOKIE, Callers, refuse_other_sites, set_cookie
from gateway.desk.errors import SigninRequiredError
from gateway.desk.pages import is_ours, purpose_target, see_other, texts
from gateway.desk.roles import Viewer
from gateway.desk.service import Service
from gateway.desk.sessions import Invitation, Signins
from gateway.desk.views import Views


class SigninPages:
    """The handlers under /signin and /signout."""

    def __init__(
        self, service: Service, signins: Signins, callers: Callers, views: Views, *, session_s: float, home: str
    ) -> None:
        self._service = service
        self._signins = signins
        self._callers = callers
        self._views = views
        self._session_s = session_s
        self._home = home

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand."""
        return [
            web.get("/signin", self.form),
            web.get("/signin/{code}", self.button),
            web.post("/signin", self.sign_in),
            web.post("/signout", self.sign_out),
        ]

    async def form(self, request: web.Request) -> web.Response:
        """Where one signs in without a link."""
        return self._views.page(request, None, "signin.html", code=None, problem=None, onward="")

    async def button(self, request: web.Request) -> web.Response:
        """The page behind a one-time link; the same whether the code holds or not."""
        return self._views.page(request, None, "signin.html", code=request.match_info["code"], problem=None, onward="")

    async def sign_in(self, request: web.Request) -> web.Response:
        """Exchange a code or a token for a session."""
        refuse_other_sites(request)
        form = texts(await request.post())
        viewer, invitation, onward = await self._who(form)
        earlier = request.cookies.get(COOKIE)
        if earlier is not None:
            self._signins.end(earlier)
        secret = self._signins.begin(viewer)
        self._state(secret, invitation)
        response = see_other(onward)
        set_cookie(response, request, secret, max_age_s=int(self._session_s))
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session here and in the browser."""
        caller = await self._callers.of(request)
        caller.check_form(texts(await request.post()).get("csrf"))
        self._signins.end(request.cookies.get(COOKIE, ""))
        response = see_other("/signin")
        response.del_cookie(COOKIE, path="/")
        return response

    async def _who(self, form: dict[str, str]) -> tuple[Viewer, Invitation | None, str]:
        """Who signs in, by which invitation, and the page they go on to."""
        if not form.get("code"):
            onward = form.get("next", "")
            viewer = await self._callers.bearer(form.get("token", "").strip())
            return viewer, None, onward if is_ours(onward) else self._home
        invitation = self._signins.redeem(form["code"])
        if invitation is None:
            raise SigninRequiredError(
                "this link was used already or is too old",
                code="code_invalid",
                advice="Ask for a new one; a link works once, for ten minutes.",
            )
        return invitation.viewer, invitation, invitation.onward or self._home

    def _state(self, secret: str, invitation: Invitation | None) -> None:
        """State, in the session that begins, the purpose that the invitation carries."""
        session = self._signins.find(secret)
        if session is not None and invitation is not None and invitation.grant is not None:
            target = purpose_target(invitation.onward, session.viewer)
            self._service.state_purpose(session.viewer, target, invitation.grant)
