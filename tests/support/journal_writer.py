"""A process that writes a journal under load until it is killed: ``python -m tests.support.journal_writer DATA CALLS``.

Each receipt goes to stdout, one a line, once its entry is acknowledged; the first line is ``ready``. ``CALLS`` run at
once, every fourth streams: begin entry, chunks, decision. ``--unsynced`` leaves fdatasync out. ``--spool`` acknowledges
what is written; ``--best-effort`` awaits nothing, sheds every fifth call, and tells ``shed`` or ``admitted`` for each.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from storage.durable import Syscalls
from storage.journal import Journal, JournalLimits
from storage.keys import Keyring
from tests.support.journals import ORIGIN_BASE, draft, sealed_decision

LIMITS = JournalLimits(segment_bytes=1024 * 1024, call_bytes_reserved=0)


class Unsynced(Syscalls):
    """The negative control: acknowledges what nobody synced."""

    def datasync(self, fd: int) -> None:
        """Nothing."""


async def _buffered(journal: Journal, *, awaits_sync: bool) -> str:
    made, stored, key = sealed_decision(journal, b'{"asked":1}' * 100, b'{"answered":1}')
    appended = await journal.append(made, parts=stored, key=key, closes=True, awaits_sync=awaits_sync)
    return appended.receipt


async def _streamed(journal: Journal, *, awaits_sync: bool) -> str:
    key = journal.new_key()
    stream = key.sealer.open_stream_part("response", "text/event-stream", 0)
    begin = draft("begin", key=key.key_id)
    await journal.append(begin, key=key, awaits_sync=awaits_sync)
    for number in range(3):
        await journal.append_parts(key, [stream.chunk(b"data: %d\n\n" % number)], ts_ns=0, awaits_sync=awaits_sync)
    made = draft(decision=begin.decision, parts=(stream.finish(),))
    appended = await journal.append(made, closes=True, awaits_sync=awaits_sync)
    return appended.receipt


async def _caller(journal: Journal, number: int, *, awaits_sync: bool) -> None:
    while True:
        for turn in range(4):
            if journal.disk_share > 0.9:
                await asyncio.sleep(0.001)
                continue
            journal.admit("acme", "credit")
            call = _streamed if (number + turn) % 4 == 0 else _buffered
            receipt = await call(journal, awaits_sync=awaits_sync)
            # one write(2) a line: a killed process leaves whole lines
            os.write(1, receipt.encode() + b"\n")


async def _effort(journal: Journal, number: int) -> None:
    turn = number
    while True:
        await asyncio.sleep(0.001)
        if journal.disk_share > 0.9:
            continue
        turn += 1
        journal.admit("acme", "credit")
        if turn % 5 == 0:
            journal.shed("acme", "credit")
        else:
            made, stored, key = sealed_decision(journal, b"asked", b"answered")
            journal.append(made, parts=stored, key=key, closes=True, awaits_sync=False)
        os.write(1, b"shed\n" if turn % 5 == 0 else b"admitted\n")


async def main(data: Path, calls: int, options: list[str]) -> None:
    """Write until killed."""
    keys = Keyring.open(data, create=True).journal_keys()
    syscalls = Unsynced() if "--unsynced" in options else Syscalls()
    journal = await Journal.open(
        data / "journal" / "gateway-0", origin_base=ORIGIN_BASE, keys=keys, limits=LIMITS, syscalls=syscalls
    )
    os.write(1, b"ready\n")
    if "--best-effort" in options:
        await asyncio.gather(*(_effort(journal, number) for number in range(calls)))
    awaits_sync = "--spool" not in options
    await asyncio.gather(*(_caller(journal, number, awaits_sync=awaits_sync) for number in range(calls)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
