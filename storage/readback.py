"""Reading back: whether rows that were to be inserted are there, once each, byte for byte.

An acknowledgement says that ClickHouse took the rows, not that it has them; after a cut connection or a crash not even
that is known. So a set of rows is described by one *line* per row, made by the same rule here and in SQL (the hashes
are computed by ClickHouse from the bytes that it stores); the digest over the sorted lines is compared, and only where
it differs are the lines themselves fetched, to say what is missing.
"""

from __future__ import annotations

import os
from collections import Counter

from storage.accounts import account_of
from storage.clickhouse import SWEEP, Database
from storage.errors import StorageUnavailable, Unverifiable
from storage.lines import Rows, digest_of


def missing(database: Database, expected: Rows) -> list[int]:
    """The places in `expected.rows` of those that are not in the database; empty on return: all are there, once each.

    Raises:
        Unverifiable: a row is there twice, or with other content than was sent.
        StorageUnavailable: the database does not answer.
    """
    summary = (
        f"SELECT count(), hex(SHA256(arrayStringConcat(arrayMap(line -> concat(line, '\\n'),"  # noqa: S608
        f" arraySort(groupArray({expected.line})))))) FROM {expected.table} WHERE {expected.where}"
    )
    account = account_of(expected.table)  # whoever inserts reads back: no other account's limits may stop that
    ((count, digest),) = database.rows(summary, expected.parameters, caps=SWEEP, account=account)
    if count == len(expected.lines) and digest == expected.digest:
        return []
    if count == 0:
        return list(range(len(expected.rows)))
    return _compare(database, expected)


def _compare(database: Database, expected: Rows) -> list[int]:
    listing = f"SELECT {expected.line} FROM {expected.table} WHERE {expected.where}"  # noqa: S608 (our own words only)
    account = account_of(expected.table)
    found = Counter(line for (line,) in database.rows(listing, expected.parameters, caps=SWEEP, account=account))
    twice = sorted(line for line, times in found.items() if times > 1)
    if twice:
        raise Unverifiable(f"{expected.table}: there twice: {twice[0]}")
    wanted = set(expected.lines)
    keys = {_key(line): line for line in expected.lines}
    for line in sorted(set(found) - wanted):
        if _key(line) in keys:
            raise Unverifiable(f"{expected.table}: {line} instead of {keys[_key(line)]}")
        if expected.alone:
            raise Unverifiable(f"{expected.table}: {line}, which was never sent")
    return [index for index, line in enumerate(expected.lines) if line not in found]


def _key(line: str) -> str:
    return line.rpartition(" ")[0]


def bring(database: Database, rows: Rows, *, token: str) -> int:
    """Insert what is missing of `rows` and read it back; on return all are there, once. Returns how many were sent.

    For rows that can be made again at any time from what is already in the database; what comes from a journal goes
    through a shipper. Safe to call again after any failure.

    Raises:
        Unverifiable: a row is there twice, or with other content.
        StorageUnavailable: the database does not answer, or acknowledged rows do not appear.
    """
    sent = 0
    for turn in range(3):
        absent = missing(database, rows)
        if not absent:
            return sent
        sent += len(absent)
        # The first time under the token that an insert of the same rows would have, should it not have ended yet;
        # afterwards under another, because the server may remember a token whose rows it lost.
        lines = digest_of([rows.lines[place] for place in absent])[:32]
        fresh = f"{token}:{lines}" if turn == 0 else f"{token}:{lines}:{os.urandom(8).hex()}"
        absent_rows = [rows.rows[place] for place in absent]
        database.insert(rows.table, rows.columns, absent_rows, token=fresh, account=account_of(rows.table))
    raise StorageUnavailable(f"{rows.table}: rows were acknowledged and are not there")
