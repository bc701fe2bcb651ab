"""All that stands outside of the ledger, as the configuration asks for it: witnesses, time stamps, copies."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from dataclasses import dataclass

from config.errors import ConfigError
from config.load import Configuration
from gateway.keeper import metrics
from gateway.keeper.logrounds import LogRounds
from gateway.keeper.outside import Copying, Stamping, Tried
from gateway.keeper.witnessing import Asked, Witnessing
from storage.clickhouse import Database
from storage.errors import Unverifiable


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchoring:
    """What is configured of it; None otherwise."""

    witnessing: Witnessing | None = None
    stamping: Stamping | None = None
    copying: Copying | None = None

    @classmethod
    def of(cls, configuration: Configuration, rounds: LogRounds, database: Database) -> Anchoring:
        """The anchors that the configuration asks for.

        Raises:
            ConfigError: a witness's key is none.
        """
        asked = configuration.settings.ledger
        metrics.LOG_COSIGNED.set(0)
        try:
            witnessing = None if asked.witnesses is None else Witnessing(asked.witnesses, rounds, database)
        except Unverifiable as error:
            raise ConfigError(f"{configuration.path}: ledger.witnesses: {error.message}") from error
        return cls(
            witnessing=witnessing,
            stamping=None if asked.timestamps is None else Stamping(asked.timestamps, rounds, database),
            copying=None if asked.copies is None else Copying(configuration.base / asked.copies, rounds),
        )

    def loops(self) -> dict[str, Coroutine[None, None, None]]:
        """Name → what runs for ever."""
        found = {"witness": self.witnessing, "stamp": self.stamping, "copy": self.copying}
        return {name: one.run() for name, one in found.items() if one is not None}

    def states(self) -> Iterator[tuple[str, str | None, int]]:
        """Of each: its name, what is wrong with it, and up to how many leaves it got."""
        for one in self.witnessing.asked if self.witnessing is not None else ():
            yield _witness(one)
        for tried in (self.stamping, self.copying):
            if tried is not None:
                yield _other(tried.tried)


def _witness(one: Asked) -> tuple[str, str | None, int]:
    return f"witness {one.witness.name}", one.problem, one.cosigned


def _other(tried: Tried) -> tuple[str, str | None, int]:
    return f"anchor {tried.name}", tried.problem, tried.size
