"""Whether extraction entries cover every decision up to where they have come, once each, and nothing else.

An extraction entry names, in ``source``, a range of decisions of one tenant and route; its rows must be exactly these.
The entries of one scope follow each other without a decision between them. A later entry by another extractor, or of
another epoch, may cover decisions again: the newest row counts. Memory: two numbers a scope.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from storage.clickhouse import SWEEP, Database
from storage.findings import Findings
from storage.ids import b64
from storage.queries import blocks
from storage.typed import Stored
from storage.windows import NUMBERS_END

SETTLED_NS: Final = 60 * 1_000_000_000  # entries of other scopes are written within a second or so of each other
_Scope = tuple[str, str, str]  # source origin, tenant, route


class Coverage:
    """Follows the extraction entries of all origins, each origin's in the order of their numbers.

    `recorded`: origin → how many entries its journal has, where there is one; what is not shipped yet may be covered.
    """

    def __init__(self, database: Database, recorded: Mapping[str, int]) -> None:
        self._database = database
        self._recorded = recorded
        self._covered: dict[_Scope, int] = {}  # every decision of the scope below this is covered
        self._by: dict[tuple[str, str, _Scope], int] = {}  # by this origin and extractor → covered below
        self._reached: deque[tuple[int, str, int]] = deque()  # when, source, up to where: of the last minute
        self._settled: dict[str, int] = {}  # source → decisions of every scope below this must be covered
        self.rows = 0

    def take(self, stored: Stored, ts_ns: int, findings: Findings) -> None:
        """Check one extraction entry; MALFORMED or QueryError where no keeper wrote it."""
        said = stored.said
        source, first, last = said["source"]["origin"], said["source"]["first"], said["source"]["last"]
        if not (type(first) is int and type(last) is int and 0 <= first <= last < NUMBERS_END):
            raise ValueError("a source range that is none")
        scope = (source, said["tenant"], said["route"])
        rows = [(row["decision"], row["leaf"]) for row in _rows(said)]
        self.rows += len(rows)
        covered = self._covered.get(scope, 0)
        low = min(covered, first)
        there = self._decisions(scope, low, last, len(rows))
        if rows != [(decision, leaf) for _, decision, leaf in there]:
            self._tell(stored, scope, rows, there, findings)
        mine = (stored.origin, str(said["extractor"]), scope)
        if first < self._by.get(mine, 0):
            findings.broken("extraction", stored.seq, f"covers decisions of {source} again from {first} on")
        self._by[mine] = max(self._by.get(mine, 0), last + 1)
        self._covered[scope] = max(covered, last + 1)
        self._settle(ts_ns, source, last + 1)

    def finish(self, origin: str, findings: Findings) -> None:
        """All extraction entries were taken; what they left out of the decisions of `origin`."""
        settled = self._settled.get(origin, 0)
        for tenant, route, last in self._rows("uncovered", {"origin": origin, "high": settled}) if settled else ():
            covered = self._covered.get((origin, tenant, route), 0)
            if last >= covered:
                found = self._decisions((origin, tenant, route), covered, settled - 1, 1)
                detail = f"a decision of {tenant} {route} that no extraction covers; others up to {settled} are"
                findings.broken("extraction", found[0][0] if found else last, detail)

    def _settle(self, ts_ns: int, source: str, below: int) -> None:
        self._reached.append((ts_ns, source, below))
        while self._reached and self._reached[0][0] < ts_ns - SETTLED_NS:
            _, of, upto = self._reached.popleft()
            self._settled[of] = max(self._settled.get(of, 0), upto)

    def _tell(
        self,
        stored: Stored,
        scope: _Scope,
        rows: list[tuple[str, str]],
        there: list[tuple[int, str, str]],
        findings: Findings,
    ) -> None:
        """Where the rows of the entry are not the decisions that it should cover."""
        named, leaves = dict(rows), {decision: leaf for _, decision, leaf in there}
        if len(named) < len(rows):
            findings.broken("extraction", stored.seq, "names a decision twice")
        for seq, decision, _ in there:
            if decision not in named:
                findings.broken("extraction", seq, "a decision that no extraction covers", origin=scope[0])
        is_early = self._is_early(scope[0], stored.said["source"]["last"])
        for decision, leaf in rows:
            if decision not in leaves:
                if not is_early:
                    findings.broken("extraction", stored.seq, f"names decision {decision}, which is not there")
            elif leaves[decision] != leaf:
                findings.broken("extraction", stored.seq, f"names another entry as decision {decision}")
        if is_early:
            findings.unknown("extraction", stored.seq, f"its decisions of {scope[0]} have not been shipped")
        elif named == leaves and len(named) == len(rows):
            findings.broken("extraction", stored.seq, "names its decisions in another order")

    def _is_early(self, origin: str, last: int) -> bool:
        """Whether entry `last` may be recorded and not shipped yet."""
        ((count, newest),) = self._rows("stored", {"origin": origin})
        return last > (newest if count else -1) and last < self._recorded.get(origin, NUMBERS_END)

    def _decisions(self, scope: _Scope, low: int, high: int, rows: int) -> list[tuple[int, str, str]]:
        where = {"origin": scope[0], "tenant": scope[1], "route": scope[2], "low": low, "high": high}
        found = self._rows("coverable", {**where, "limit": rows + 1_000})
        return [(seq, decision, b64(leaf)) for seq, decision, leaf in found]

    def _rows(self, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._database.rows(blocks("audit.sql")[name], parameters, caps=SWEEP)


def _rows(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(said["cols"], row, strict=True)) for row in said["rows"]]
