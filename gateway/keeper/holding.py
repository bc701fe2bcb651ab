"""The commands about holds and approvals: the desk's operations, by the rights of the token that is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.desk.app import Desk
from gateway.keeper.arguments import optional, required
from gateway.keeper.socket import Command, Lines


class HoldCommands:
    """Hold and approval commands over one desk; `desk` raises where there is none to be had."""

    def __init__(self, desk: Callable[[], Desk]) -> None:
        self._desk = desk

    def table(self) -> Mapping[str, Command]:
        """Name → command."""
        return {
            "approve": self.approve,
            "hold-list": self.listing,
            "hold-place": self.place,
            "hold-release": self.release,
        }

    async def place(self, arguments: Mapping[str, Any]) -> Lines:
        """Place a hold, or ask for one; `asked` as the body of `POST /v1/holds`."""
        token, asked = required(arguments, "token", str), required(arguments, "asked", dict)
        yield {"result": await self._desk().hold(token, asked, **_why(arguments)), "exit": 0}

    async def release(self, arguments: Mapping[str, Any]) -> Lines:
        """Ask for a hold's release."""
        hold, reason = required(arguments, "hold", str), required(arguments, "reason", str)
        token = required(arguments, "token", str)
        yield {"result": await self._desk().release(token, hold, reason, **_why(arguments)), "exit": 0}

    async def approve(self, arguments: Mapping[str, Any]) -> Lines:
        """Answer a request; `verdict`: approve, reject or withdraw."""
        request, reason = required(arguments, "request", str), required(arguments, "reason", str)
        token, verdict = required(arguments, "token", str), required(arguments, "verdict", str)
        yield {"result": await self._desk().decide(token, request, verdict, reason, **_why(arguments)), "exit": 0}

    async def listing(self, arguments: Mapping[str, Any]) -> Lines:
        """Holds, and what waits for a second person."""
        yield {"result": await self._desk().held(required(arguments, "token", str), **_why(arguments)), "exit": 0}


def _why(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"purpose": required(arguments, "purpose", str), "ticket": optional(arguments, "ticket", (str,))}
