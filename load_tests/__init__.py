"""Load tests: what evidence costs, measured against what people run instead.

The words: a *side* is a running proxy (a comparator, ours, or the upstream itself with nothing between); a *round*
lets every side have one *window* of load, in an order that turns; a *figure* is the median of a side's windows.
Machines differ and are shared, so a figure counts only as a ratio to another of the same run, or beside that run's
fdatasync.

The way of a run: `__main__` → a section (`data_plane`, `latency`, `streams`, `bodies`, `workers`) → `comparators` start
their sides on the gateway's core, `wrk` or `openloop` load them from the other, where `upstream` answers → `report`
prints a table and writes JSON, `chart` draws an SVG. Load goes to loopback only, bounded in connections and time.
"""
