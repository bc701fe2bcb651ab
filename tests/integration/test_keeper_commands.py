"""The keeper's commands: over the socket of a running keeper, and in a process that opens the data itself."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.load import Configuration
from gateway import development
from gateway.keeper.commands import Commands
from gateway.keeper.keeper import Keeper
from gateway.keeper.lock import DataLock
from gateway.keeper.socket import Listener, command
from tests.support.keeping import Gateway, apart, kept, until, written
from tests.support.loans import Loans


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


@pytest.fixture
async def served(tmp_path: Path, loans: Loans) -> AsyncIterator[tuple[Keeper, Gateway]]:
    """A keeper that answers on its socket, and a gateway that wrote six decisions."""
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        listener = Listener(configuration.data, Commands(keeper.parts, keeper).table())
        await listener.start()
        for number in range(6):
            await gateway.decide(number)
        yield keeper, gateway
        await listener.close()
    await gateway.close()


async def run(configuration: Configuration, name: str, **arguments: Any) -> list[dict[str, Any]]:
    async with asyncio.timeout(90):
        return [line async for line in command(configuration.data, name, arguments, configuration=configuration)]


async def result(configuration: Configuration, name: str, **arguments: Any) -> Any:
    last = (await run(configuration, name, **arguments))[-1]
    assert last.get("exit") == 0, last
    return last["result"]


async def test_settle_ends_when_everything_is_visible_and_verify_finds_it_sound(
    served: tuple[Keeper, Gateway],
) -> None:
    keeper, _ = served
    configuration = keeper.parts.configuration
    lines = await run(configuration, "settle")
    assert all("progress" in line for line in lines[:-1])
    assert lines[-1]["result"]["decisions"] == {
        "shipped": 6,
        "closings": 6,
        "projected": 6,
        "explained": 6,
        "failed": 0,
    }
    assert lines[-1]["result"]["calls"] == {"accepted": 6, "closed": 6, "open": 0, "lost": 0, "refused": 0}
    verified = (await run(configuration, "verify"))[-1]
    assert verified["exit"] == 0, [claim for claim in verified["result"]["claims"] if claim["verdict"] != "PASS"]


async def test_settle_gives_up_after_its_time_and_says_why(served: tuple[Keeper, Gateway]) -> None:
    last = (await run(served[0].parts.configuration, "settle", timeout_s=0.001))[-1]
    assert last["error"]["code"] == "settle_timeout"


async def test_status_count_and_doctor_tell_what_is_there(served: tuple[Keeper, Gateway]) -> None:
    keeper, gateway = served
    configuration = keeper.parts.configuration
    appended = await gateway.decide(7)
    settled = await result(configuration, "settle")
    assert settled["shards"][0]["closed"] == 7
    ids = [orjson.loads(appended.entry)["id"], gateway.journal.new_id()]
    counted = await result(configuration, "count", decisions=ids)
    assert counted == {"asked": 2, "shipped": 1, "rows": 1, "explained": 1, "failed": 0}
    checks = (await result(configuration, "doctor"))["checks"]
    assert {check["name"] for check in checks} >= {"disk", "keys", "clickhouse", "model of loans"}
    assert all(check["state"] != "fail" for check in checks)


async def test_a_rebuild_makes_the_same_rows_and_verifies(served: tuple[Keeper, Gateway]) -> None:
    configuration = served[0].parts.configuration
    await result(configuration, "settle")
    rows = (await result(configuration, "rebuild"))["rows"]
    assert (rows["decisions"], rows["explanations"]) == (6, 6)
    assert await result(configuration, "migrate") == {"applied": []}
    await result(configuration, "settle")
    assert (await run(configuration, "verify"))[-1]["exit"] == 0


async def test_models_check_compares_with_recorded_decisions(served: tuple[Keeper, Gateway], loans: Loans) -> None:
    configuration = served[0].parts.configuration
    await result(configuration, "settle")
    checked = await result(configuration, "models-check", file=str(loans.registration), last=4)
    assert checked == {"total": 4, "bound": 4, "summary": "bound 4 of 4", "differences": []}


async def test_a_faulty_registration_is_refused_with_file_and_key(
    served: tuple[Keeper, Gateway], tmp_path: Path
) -> None:
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text("v: 1\nname: loans\n")
    last = (await run(served[0].parts.configuration, "models-register", file=str(faulty)))[-1]
    assert (last["exit"], last["error"]["code"]) == (2, "config_invalid")
    assert "faulty.yaml" in last["error"]["message"]


async def test_why_needs_a_token_that_may_and_leaves_an_access_entry(served: tuple[Keeper, Gateway]) -> None:
    keeper, gateway = served
    configuration = keeper.parts.configuration
    decision = orjson.loads((await gateway.decide(0)).entry)["id"]
    await result(configuration, "settle")
    stated = {"decision": decision, "purpose": "complaint", "ticket": "T-1"}
    refused = (await run(configuration, "why", token="not.a.token", **stated))[-1]
    assert refused["exit"] == 2
    token = development.sign(
        configuration.data, subject="ann", roles=["support"], tenant="default", expires_s=int(time.time()) + 60
    )
    told = await result(configuration, "why", token=token, **stated)
    assert told["sentences"]
    (look,) = keeper.parts.database.rows("SELECT count() FROM entries WHERE kind = 'access'")
    await result(configuration, "settle")
    ((looks, actor),) = keeper.parts.database.rows(
        "SELECT count(), any(actor) FROM accesses WHERE outcome = 'granted' AND purpose = 'complaint'"
    )
    assert (looks, actor) == (1, "answerable-development|ann")
    assert look is not None


async def test_a_sign_in_code_is_a_path_of_the_desk(served: tuple[Keeper, Gateway]) -> None:
    configuration = served[0].parts.configuration
    stated = {"subject": "ann", "roles": ["support"], "purpose": "complaint", "ticket": "T-1"}
    stated["target"] = f"/decisions/{served[1].journal.new_id()}"
    assert (await result(configuration, "signin-code", **stated))["path"].startswith("/signin/")


async def test_an_argument_of_the_wrong_kind_is_refused(served: tuple[Keeper, Gateway]) -> None:
    configuration = served[0].parts.configuration
    for name, arguments in (("count", {"decisions": "x"}), ("models-check", {"file": 7}), ("why", {})):
        last = (await run(configuration, name, **arguments))[-1]
        assert last["error"]["code"] == "arguments_invalid"


async def test_without_a_keeper_every_command_opens_the_data_itself(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    for number in range(4):
        await gateway.decide(number)
    await gateway.close()
    registered = await result(configuration, "models-register", file=str(loans.registration))
    assert (registered["name"], registered["version"]) == ("loans", "1.0")
    settled = await result(configuration, "settle")
    assert settled["decisions"] == {"shipped": 4, "closings": 4, "projected": 4, "explained": 4, "failed": 0}
    for name in ("migrate", "doctor", "status", "rebuild"):
        assert (await run(configuration, name))[-1]["exit"] == 0, name
    assert (await run(configuration, "verify"))[-1]["exit"] == 0
    # --data alone: the configuration that was last in force is found there
    last = [line async for line in command(configuration.data, "verify", {})][-1]
    assert last["exit"] == 0
    DataLock.take(configuration.data).release()  # and the data was let go


async def test_a_directory_that_never_had_a_keeper_says_so(tmp_path: Path) -> None:
    last = [line async for line in command(tmp_path / "nothing", "verify", {})][-1]
    assert (last["exit"], last["error"]["code"]) == (2, "config_invalid")


async def test_a_keeper_waits_while_a_command_holds_the_data(tmp_path: Path) -> None:
    configuration = written(tmp_path)
    lock = DataLock.take(configuration.data)  # as a command that opened the data itself
    log = tmp_path / "waiting.log"
    with apart(configuration, log=log) as keeper:
        await until(lambda: log.exists() and "waiting_for_data" in log.read_text())
        assert keeper.poll() is None
        lock.release()
        await until((configuration.data / "keeper.sock").exists)
        keeper.terminate()
        assert await asyncio.to_thread(keeper.wait, 30) == 0


async def test_a_second_keeper_on_the_same_data_exits_2_and_names_the_first(tmp_path: Path) -> None:
    configuration = written(tmp_path)
    log = tmp_path / "second.log"
    with apart(configuration) as first:
        await until((configuration.data / "keeper.sock").exists)
        with apart(configuration, log=log) as second:
            assert await asyncio.to_thread(second.wait, 30) == 2
        assert f"process {first.pid}" in log.read_text()
        first.terminate()
        try:
            assert await asyncio.to_thread(first.wait, 30) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("the keeper did not end on SIGTERM")
    assert not (configuration.data / "keeper.sock").exists()
