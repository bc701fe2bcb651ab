"""Who sends a request to the desk: a bearer token, or the cookie of a session. Thin: decides nothing about rights."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.desk.errors import ForgeryError, SigninRequiredError
from gateway.desk.roles import Viewer, viewer
from gateway.desk.sessions import Session, Signins, same
from gateway.tokens import Tokens, VerifiedToken

COOKIE: Final = "answerable_desk"
CSRF_HEADER: Final = "X-CSRF-Token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sends a request; `session` is None where a bearer token says so."""

    viewer: Viewer
    session: Session | None

    def check_form(self, token: str | None) -> None:
        """Return if the form, or the header, carries this session's token; a bearer token needs none.

        Raises:
            ForgeryError: it does not: the request may come from another site.
        """
        if self.session is not None and not same(token or "", self.session.csrf):
            raise ForgeryError("this form does not belong to your session")


class Callers:
    """Finds out who sends a request."""

    def __init__(self, tokens: Tokens, signins: Signins, *, tenant: str, trying: bool) -> None:
        self._tokens = tokens
        self._signins = signins
        self._tenant = tenant
        self._trying = trying

    async def of(self, request: web.Request) -> Caller:
        """The caller of `request`.

        Raises:
            SigninRequiredError: neither a token nor a session that holds.
            TokenError: the token does not prove who calls.
            ForbiddenError: whoever it is has no role here.
        """
        header = request.headers.get("Authorization", "")
        scheme, _, bearer = header.partition(" ")
        if scheme.lower() == "bearer":
            return Caller(viewer=await self.bearer(bearer.strip()), session=None)
        session = self._signins.find(request.cookies.get(COOKIE, ""))
        if session is None:
            raise SigninRequiredError("you are not signed in")
        return Caller(viewer=session.viewer, session=session)

    async def bearer(self, token: str) -> Viewer:
        """Whom a bearer token speaks for; raises as `of`."""
        return self.spoken_for(await self._tokens.verify(token))

    def spoken_for(self, token: VerifiedToken) -> Viewer:
        """The viewer of a verified token."""
        return viewer(
            tenant=token.tenant or self._tenant,
            issuer=token.issuer,
            subject=token.subject,
            roles=token.roles,
            matter=token.claims.get("matter"),
            trying=self._trying,
        )


def refuse_other_sites(request: web.Request) -> None:
    """Return unless a browser says that another site's page sent this request (Fetch Metadata, Origin).

    Raises:
        ForgeryError: it does. Sign-in forms have no session's token yet, so this alone protects them.
    """
    refusal = ForgeryError("this form was sent from another site")
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:  # browsers let no page set it, and no proxy in front of the desk changes what it means
        if site not in ("same-origin", "none"):
            raise refusal
        return
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise refusal


def is_tls(request: web.Request) -> bool:
    """Whether the browser's side of the connection is TLS, as far as can be seen; it only makes cookies stricter."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def set_cookie(response: web.StreamResponse, request: web.Request, value: str, *, max_age_s: int) -> None:
    """Give the browser its session's cookie."""
    response.set_cookie(
        COOKIE, value, max_age=max_age_s, path="/", httponly=True, samesite="Lax", secure=is_tls(request)
    )
