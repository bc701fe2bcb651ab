"""The desk's own errors, each with the status and the one sentence of advice that its answer carries."""

from config.errors import AnswerableError


class SigninRequiredError(AnswerableError):
    """Nobody is signed in: a page answers with the sign-in form."""

    code = "signin_required"
    status = 401
    advice = "Sign in, or send a bearer token of a configured issuer."


class ForbiddenError(AnswerableError):
    """The role may never do this, whatever the decision: says nothing about what exists."""

    code = "role_forbidden"
    status = 403
    advice = "Ask a colleague whose role may do this; the README's table says who may do what."


class NotFoundError(AnswerableError):
    """Not there, or outside the caller's scope: the two look the same."""

    code = "not_found"
    status = 404
    advice = "Check the reference and your scope; a new decision appears here a few seconds after its answer."


class PurposeRequiredError(AnswerableError):
    """No purpose (or, for support, no ticket) was given for this case yet: a page answers with the form."""

    code = "purpose_required"
    status = 428
    advice = "Send `Answerable-Purpose` (and `Answerable-Ticket` as support), or look the case up with them first."


class RequestError(AnswerableError):
    """A parameter is missing or not of its kind."""

    code = "request_invalid"
    status = 400
    advice = "Compare the request with /openapi.json."


class ConflictError(AnswerableError):
    """What is asked for contradicts what is on record already."""

    code = "conflict"
    status = 409
    advice = "Load the list again: somebody else may have been there first."


class ForgeryError(AnswerableError):
    """A form came without this session's token, or from another site."""

    code = "csrf_refused"
    status = 403
    advice = "Load the page again and send its form."
