"""How long the oldest of what waits has waited, told from two numbers that rise. Pure."""

from __future__ import annotations

from collections import deque

MARKS_MAX = 256  # a backlog of hours is remembered in steps of minutes


class Backlog:
    """Everything below `done` is done, everything below `known` was there when it was last looked."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()  # what was known, and since when; both rising

    def age_s(self, *, known: int, done: int, now_s: float) -> float:
        """How long what is known and not done has waited, to the interval of asking; 0 where nothing does.

        `now_s` never falls.
        """
        marks = self._marks
        if not marks or known > marks[-1][0]:
            marks.append((known, now_s))
        while marks and marks[0][0] <= done:
            marks.popleft()
        if len(marks) > MARKS_MAX:  # every other one goes, the oldest never does
            self._marks = marks = deque(mark for number, mark in enumerate(marks) if number % 2 == 0)
        return now_s - marks[0][1] if marks else 0.0
