"""Paths that name places in JSON for writing: which values a route redacts (pure).

JMESPath, which the rest of the configuration reads values by, selects values and cannot say where they stand. This is
the part of it that can: names joined by dots, ``[0]``, ``[*]`` (each element of a list), ``*`` (each member of an
object), ``"quoted names"``; it means the same there. One step is added: ``**``, any depth, as in ``**.iban``. A path is
matched in one walk over the document together with all others, in time linear in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Annotated, Any, Final, NamedTuple

import orjson
from pydantic import AfterValidator, Field

PATH_CHARS_MAX: Final = 128  # what a person can review, and what an entry can repeat
STEPS_MAX: Final = 32
_STEP = re.compile(r'(?:(\*\*|\*)|([A-Za-z_][A-Za-z0-9_]*)|("(?:[^"\\]|\\.)+"))')
_BRACKET = re.compile(r"\[(?:(\*)|(\d{1,9}))\]")


class Wild(Enum):
    """A step that names no single member or element."""

    MEMBERS = "*"
    EACH = "[*]"
    DEEP = "**"


Step = str | int | Wild


class Place(NamedTuple):
    """One value: `holder[key]`, which the path numbered `path` selects."""

    holder: Any
    key: Any
    path: int


def steps(path: str) -> tuple[Step, ...]:
    """What the path says, step by step.

    Raises:
        ValueError: it is none; the message says what was expected, and where.
    """
    found: list[Step] = []
    at = 0
    while at < len(path):
        bracket = _BRACKET.match(path, at)
        if bracket is not None:
            found.append(Wild.EACH if bracket[1] else int(bracket[2]))
            at = bracket.end()
            continue
        if found:
            if path[at] != ".":
                raise _fault(path, at, "a dot, [*] or [0]")
            at += 1
        step = _STEP.match(path, at)
        if step is None:
            raise _fault(path, at, 'a name, a "quoted name", * or **')
        found.append(Wild(step[1]) if step[1] else step[2] or _unquoted(path, at, step[3]))
        at = step.end()
    if not found or found[-1] is Wild.DEEP:
        raise _fault(path, at, "a step that names the value")
    if len(found) > STEPS_MAX:
        raise ValueError(f"not a path: {path!r} has {len(found)} steps, at most {STEPS_MAX} are taken")
    return tuple(found)


def _unquoted(path: str, at: int, quoted: str) -> str:
    try:
        return str(orjson.loads(quoted))
    except orjson.JSONDecodeError as error:
        raise _fault(path, at, "a quoted name as JSON spells it") from error


def _fault(path: str, at: int, expected: str) -> ValueError:
    return ValueError(f"not a path: expected {expected} at character {at + 1} of {path!r}")


class _Branch:
    """What paths with the same beginning go on with. `state` is itself and what may follow without a step."""

    __slots__ = ("each", "indexes", "loops", "members", "names", "path", "state")

    def __init__(self, *, loops: bool = False) -> None:
        self.names: dict[str, _Branch] = {}
        self.indexes: dict[int, _Branch] = {}
        self.members: _Branch | None = None
        self.each: _Branch | None = None
        self.loops = loops  # it goes on at any depth below
        self.path: int | None = None  # that ends here
        self.state: tuple[_Branch, ...] = (self,)

    @property
    def is_plain(self) -> bool:
        """Whether it asks for names alone."""
        return not (self.indexes or self.members or self.each or self.loops)

    def grown(self, step: Step) -> _Branch:
        """The branch behind one step more."""
        if isinstance(step, str):
            return self.names.setdefault(step, _Branch())
        if isinstance(step, int):
            return self.indexes.setdefault(step, _Branch())
        if step is Wild.MEMBERS:
            self.members = self.members or _Branch()
            return self.members
        if step is Wild.EACH:
            self.each = self.each or _Branch()
            return self.each
        if self.loops:
            return self
        if len(self.state) == 1:
            self.state = (self, _Branch(loops=True))
        return self.state[1]

    def keys(self, node: Any) -> Iterator[tuple[Any, _Branch]]:
        """Which members or elements of a node it goes on with, and how."""
        if isinstance(node, dict):
            yield from ((name, branch) for name, branch in self.names.items() if name in node)
            if self.members is not None:
                yield from ((name, self.members) for name in node)
        else:
            yield from ((at, branch) for at, branch in self.indexes.items() if at < len(node))
            if self.each is not None:
                yield from ((at, self.each) for at in range(len(node)))
        if self.loops:
            yield from ((key, self) for key in (node if isinstance(node, dict) else range(len(node))))


class Paths:
    """Several paths, matched together in one walk: in time linear in the document for each path."""

    __slots__ = ("_root",)

    def __init__(self, paths: Sequence[tuple[Step, ...]]) -> None:
        """As `steps` gives them; a place names its path by the number here."""
        self._root = _Branch()
        for number, path in enumerate(paths):
            branch = self._root
            for step in path:
                branch = branch.grown(step)
            if branch.path is None:
                branch.path = number

    def places(self, document: Any) -> Iterator[Place]:
        """Each value that a path selects, once: for the first of several paths that select it.

        What is selected is not looked into. Whoever reads may change or take away `holder[key]` before the next one.
        """
        waiting: list[tuple[Any, tuple[_Branch, ...]]] = [(document, self._root.state)]
        while waiting:
            node, state = waiting.pop()
            if not isinstance(node, dict | list):
                continue
            if len(state) == 1 and state[0].is_plain:  # the usual case
                if isinstance(node, list):
                    continue
                for name, branch in state[0].names.items():
                    if name not in node:
                        continue
                    if branch.path is not None:
                        yield Place(node, name, branch.path)
                    else:
                        waiting.append((node[name], branch.state))
                continue
            yield from _places_in(node, state, waiting)


def _places_in(
    node: Any, state: tuple[_Branch, ...], waiting: list[tuple[Any, tuple[_Branch, ...]]]
) -> Iterator[Place]:
    """Those among a node's own members or elements; what lies deeper is put to `waiting`."""
    chosen: dict[Any, int] = {}
    inner: dict[Any, dict[_Branch, None]] = {}
    for at in state:
        for key, branch in at.keys(node):
            if branch.path is not None and branch is not at:
                chosen[key] = min(branch.path, chosen.get(key, branch.path))
            inner.setdefault(key, {}).update(dict.fromkeys(branch.state))
    waiting.extend((node[key], tuple(branches)) for key, branches in inner.items() if key not in chosen)
    for key, number in chosen.items():
        yield Place(node, key, number)


def places(document: Any, paths: Sequence[tuple[Step, ...]]) -> Iterator[Place]:
    """As `Paths.places`, where the paths are met once."""
    return Paths(paths).places(document)


def _is_path(path: str) -> str:
    steps(path)
    return path


PlacePath = Annotated[str, Field(min_length=1, max_length=PATH_CHARS_MAX), AfterValidator(_is_path)]
