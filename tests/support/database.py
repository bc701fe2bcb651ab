"""Databases for tests: embedded and over HTTP, each test in a database of its own name.

Embedded ClickHouse allows one path per process as long as any handle on it is open, so the path is shared by the
tests of one process and each `Database` is closed at the end of its test; a test may then open a path of its own.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.clickhouse import Database
from storage.migrate import migrate
from storage.profiles import Profile
from tests.support.clickhouse_http import Server

_numbers = itertools.count(1)
NOW_NS = 1_772_540_000_000_000_000  # 2026-03-03, for whatever wants a time


@pytest.fixture(scope="session")
def embedded_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test process keeps its embedded database."""
    return tmp_path_factory.mktemp("embedded") / "clickhouse"


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A ClickHouse over HTTP: the one that ANSWERABLE_TEST_CLICKHOUSE_URL names, else one of our own."""
    given = os.environ.get("ANSWERABLE_TEST_CLICKHOUSE_URL")
    if given:
        yield given
        return
    with Server(tmp_path_factory.mktemp("served") / "clickhouse") as server:
        yield server.url


def fresh_profile(kind: str, request: pytest.FixtureRequest) -> Profile:
    """A profile of `kind` with a database name that no other test has."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    if kind == "chdb":
        return Profile(kind="chdb", database=name, path=request.getfixturevalue("embedded_path"))
    return Profile(kind="server", database=name, url=request.getfixturevalue("server_url"))


@contextlib.contextmanager
def opened(profile: Profile, *, migrated: bool = True) -> Iterator[Database]:
    """A handle on a fresh database, dropped at the end."""
    with Database.open(profile) as database:
        if migrated:
            migrate(database, now_ns=NOW_NS)
        yield database
        database.command(f"DROP DATABASE IF EXISTS `{profile.database}` SYNC", inside=False)


@pytest.fixture(params=["chdb", "server"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database, once embedded and once over HTTP."""
    with opened(fresh_profile(request.param, request)) as handle:
        yield handle


@pytest.fixture
def embedded(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database, embedded only: for tests that look at our own logic and not at the way to it."""
    with opened(fresh_profile("chdb", request)) as handle:
        yield handle
