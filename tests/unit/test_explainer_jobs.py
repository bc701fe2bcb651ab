"""The life of a job, as a table."""

import pytest

from explainers.jobs import ATTEMPTS_MAX, Event, Job, State, TransitionError


def test_a_job_goes_from_pending_over_running_to_ready() -> None:
    job = Job(id="j").after("start").after("finish")
    assert (job.state, job.attempts, job.final) == ("ready", 1, True)


def test_a_dead_worker_puts_the_job_back_twice_and_then_fails_it() -> None:
    job = Job(id="j")
    for attempt in range(1, ATTEMPTS_MAX):
        job = job.after("start").after("worker_died")
        assert (job.state, job.attempts) == ("pending", attempt)
    job = job.after("start").after("worker_died")
    assert (job.state, job.attempts) == ("failed", ATTEMPTS_MAX)


def test_a_job_that_hangs_is_not_tried_again() -> None:
    assert Job(id="j").after("start").after("time_out").state == "failed"


def test_a_pending_job_can_be_skipped_or_failed() -> None:
    assert Job(id="j").after("skip").state == "skipped"
    assert Job(id="j").after("fail").state == "failed"


EVENTS: tuple[Event, ...] = ("start", "finish", "fail", "time_out", "worker_died", "skip")


@pytest.mark.parametrize("state", ["ready", "failed", "skipped"])
def test_nothing_happens_to_a_job_that_is_over(state: State) -> None:
    for event in EVENTS:
        with pytest.raises(TransitionError):
            Job(id="j", state=state).after(event)


def test_what_the_table_does_not_list_cannot_happen() -> None:
    for event in ("finish", "time_out", "worker_died"):
        with pytest.raises(TransitionError):
            Job(id="j").after(event)
    for event in ("start", "skip"):
        with pytest.raises(TransitionError):
            Job(id="j", state="running").after(event)
