"""keeper.sock: real sockets, a real lock, processes of their own."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from config.errors import AnswerableError
from gateway.keeper import socket as keeper_socket
from gateway.keeper.lock import DataHeld, DataLock
from gateway.keeper.socket import KeeperUnreachable, Lines, Listener, ask, command


async def count(arguments: Mapping[str, Any]) -> Lines:
    for number in range(arguments["to"]):
        yield {"progress": {"counted": number}}
    yield {"result": arguments["to"], "exit": 0}


async def refuse(_: Mapping[str, Any]) -> Lines:
    yield {"progress": {"asked": 1}}
    raise AnswerableError("not today", code="refused_today", status=409, advice="Come tomorrow.")


async def fail(_: Mapping[str, Any]) -> Lines:
    yield {"progress": {"asked": 1}}
    raise ZeroDivisionError


async def large(_: Mapping[str, Any]) -> Lines:
    yield {"result": "x" * 5_000_000, "exit": 0}


class Waits:
    """A command that tells when it is abandoned."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def __call__(self, _: Mapping[str, Any]) -> Lines:
        try:
            while True:
                yield {"progress": {}}
                await asyncio.sleep(0.01)
        finally:
            self.left.set()


COMMANDS = {"count": count, "refuse": refuse, "fail": fail, "large": large}


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    listener = Listener(tmp_path, COMMANDS)
    await listener.start()
    yield tmp_path
    await listener.close()


async def lines(data: Path, name: str, arguments: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    return [line async for line in ask(data, name, arguments or {})]


async def test_progress_is_streamed_and_the_last_line_is_the_result(data: Path) -> None:
    told = await lines(data, "count", {"to": 3})
    assert told == [*({"progress": {"counted": n}} for n in range(3)), {"result": 3, "exit": 0}]


async def test_a_refusal_ends_in_the_one_error_shape_with_its_exit_code(data: Path) -> None:
    told = await lines(data, "refuse")
    assert told[0] == {"progress": {"asked": 1}}
    assert told[1]["exit"] == 2
    assert told[1]["error"]["code"] == "refused_today"
    assert set(told[1]["error"]) == {"code", "message", "advice", "request_id"}


async def test_a_fault_in_a_command_says_no_more_than_its_name_and_leaves_the_keeper_alive(data: Path) -> None:
    told = await lines(data, "fail")
    assert told[-1]["error"]["code"] == "internal"
    assert (await lines(data, "count", {"to": 0}))[-1]["exit"] == 0


async def test_an_unknown_command_names_those_that_are_known(data: Path) -> None:
    told = await lines(data, "erase-everything")
    assert told[-1]["error"]["code"] == "command_unknown"
    assert "count" in told[-1]["error"]["advice"]


async def test_a_result_of_megabytes_comes_whole(data: Path) -> None:
    assert len((await lines(data, "large"))[-1]["result"]) == 5_000_000


async def test_the_socket_file_is_for_its_owner_only_and_goes_with_its_listener(tmp_path: Path) -> None:
    listener = Listener(tmp_path, COMMANDS)
    await listener.start()
    assert (tmp_path / "keeper.sock").stat().st_mode & 0o777 == 0o600
    await listener.close()
    assert not (tmp_path / "keeper.sock").exists()


async def test_a_data_directory_deeper_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a" * 40] * 4)
    deep.mkdir(parents=True)
    listener = Listener(deep, COMMANDS)
    await listener.start()
    assert (await lines(deep, "count", {"to": 1}))[-1]["exit"] == 0
    await listener.close()


async def test_a_command_whose_caller_left_is_ended(tmp_path: Path) -> None:
    waits = Waits()
    listener = Listener(tmp_path, {"wait": waits})
    await listener.start()
    told = ask(tmp_path, "wait", {})
    await anext(told)
    await told.aclose()
    await asyncio.wait_for(waits.left.wait(), 5)
    await listener.close()


async def test_where_a_keeper_listens_the_command_goes_to_it(data: Path) -> None:
    told = [line async for line in command(data, "count", {"to": 1})]
    assert told[-1] == {"result": 1, "exit": 0}


HOLD = "import sys,time; from pathlib import Path; from gateway.keeper.lock import DataLock\n"
HOLD += "lock = DataLock.take(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_a_second_holder_is_refused_and_told_who_holds_the_data(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(DataHeld, match=f"process {process.pid}"):
            DataLock.take(tmp_path)
        process.kill()
        process.wait()
    lock = DataLock.take(tmp_path)  # the kernel gave the dead holder's lock back
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


async def test_where_the_lock_is_held_and_nobody_listens_the_command_waits_and_names_the_process(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        loop = asyncio.get_running_loop()
        began = loop.time()
        told = [line async for line in command(tmp_path, "status", {})]
        assert loop.time() - began >= keeper_socket.SOCKET_WAIT_S
        assert told == [told[0]]
        assert told[0]["exit"] == 2
        assert told[0]["error"]["code"] == "keeper_unreachable"
        assert str(process.pid) in told[0]["error"]["message"]
        process.kill()
        process.wait()


async def test_a_keeper_that_hangs_is_reported_and_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(tmp_path / "keeper.sock"))
        hangs.listen()  # the kernel takes the connection, nobody reads it
        (tmp_path / "lock").write_text("4711\n")
        with pytest.raises(KeeperUnreachable, match="process 4711, does not answer"):
            async for _ in ask(tmp_path, "doctor", {}, answer_s=0.2):
                pass


async def test_a_keeper_that_ends_in_mid_answer_is_reported_as_such(tmp_path: Path) -> None:
    waits = Waits()
    listener = Listener(tmp_path, {"wait": waits})
    await listener.start()
    told = ask(tmp_path, "wait", {})
    await anext(told)
    await listener.close()
    with pytest.raises(KeeperUnreachable):
        async for _ in told:
            pass
