"""What a stream says of one choice, piece by piece, joined once at the end: linear in what was sent. Pure."""

from __future__ import annotations

from typing import Any, Final

from storage.protocols.documents import typed
from storage.protocols.faults import ANSWER, Unreadable

_SAID_ONCE: Final = frozenset({"role", "id", "type", "name", "finish_reason", "index"})


class Pieces:
    """An object whose texts and lists come in pieces; all else is as last said, null as never said."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._lists: dict[str, list[Any]] = {}
        self._message: Pieces | None = None
        self._tools: dict[int, Pieces] = {}
        self._objects: dict[str, Pieces] = {}

    def has(self, name: str) -> bool:
        """Whether `name` was said."""
        return name in self._values

    def message(self, delta: dict[str, Any]) -> None:
        """A piece of the choice's message."""
        if self._message is None:
            self._message = Pieces()
        self._message.add(delta)

    def add(self, piece: dict[str, Any]) -> None:
        """A piece of this object."""
        for name, value in piece.items():
            if value is None:
                continue
            if name == "tool_calls":
                self._add_tools(typed(value, list, ANSWER, name))
            elif isinstance(value, str) and name not in _SAID_ONCE:
                self._texts.setdefault(name, []).append(value)
            elif isinstance(value, list):
                self._lists.setdefault(name, []).extend(value)
            elif isinstance(value, dict):
                self._objects.setdefault(name, Pieces()).add(value)
            else:
                self._say(name, value)

    def _say(self, name: str, value: Any) -> None:
        before = self._values.get(name)
        if before and value == "":
            return
        if name == "name" and before not in (None, "", value):
            raise Unreadable(ANSWER, "a name comes in pieces")
        self._values[name] = value

    def joined(self) -> dict[str, Any]:
        """The whole object."""
        whole: dict[str, Any] = dict(self._values)
        whole.update({name: "".join(parts) for name, parts in self._texts.items()})
        whole.update(self._lists)
        whole.update({name: pieces.joined() for name, pieces in self._objects.items()})
        if self._tools:
            whole["tool_calls"] = [self._tools[index].joined() for index in sorted(self._tools)]
        if self._message is not None:
            whole["message"] = {"content": None, **self._message.joined()}
        return whole

    def _add_tools(self, calls: list[Any]) -> None:
        for call in calls:
            stated = typed(call, dict, ANSWER, "a tool call")
            index = typed(stated.get("index"), int, ANSWER, "the index of a tool call")
            self._tools.setdefault(index, Pieces()).add({k: v for k, v in stated.items() if k != "index"})
