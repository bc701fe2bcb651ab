"""Errors of the explainers that a caller acts upon."""

from __future__ import annotations

from config.errors import AnswerableError


class ArtifactError(AnswerableError):
    """A stored model, baseline or registration is missing, altered or of a kind that cannot be explained."""

    code = "artifact_unusable"
    status = 409
    advice = "Register the model again with `answerable models register`."


class RefusedError(AnswerableError):
    """This decision cannot be explained; the explanation entry says why."""

    code = "refused"
    status = 422
    advice = "Look at the decision's explanation entry; its code says what to change."


class PoolClosedError(AnswerableError):
    """The pool closes: nothing was decided about the job, and it may be asked again after a restart."""

    code = "explainers_closed"
    status = 503
    advice = "Ask again once the keeper is up."
