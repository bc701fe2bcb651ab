"""The keeper's log of logs: written while it runs, closed in order, refused when it was rolled back."""

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.keeper import health
from gateway.keeper.commands import Commands
from gateway.keeper.socket import Listener, command
from gateway.keeper.verifying import verify
from storage import cosignatures, notes
from storage.cosignatures import parse_witness
from storage.findings import Verdict
from storage.keys import Keyring
from storage.logproofs import check_twice, prove_twice
from tests.support.keeping import Gateway, flip, kept, settled, until, written
from tests.support.loans import Loans
from tests.support.witness import Witness

LOG = "test/log"


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


def leaves(database: Any) -> list[dict[str, Any]]:
    return [orjson.loads(entry) for (entry,) in database.rows("SELECT entry FROM log ORDER BY seq")]


async def test_shards_are_opened_grow_and_are_closed_in_the_log_of_logs(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"log_s": 0.2})
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        rounds = keeper.parts.shipping.rounds
        first = await gateway.decide(0)
        await settled(keeper)
        await until(lambda: rounds.logged_below(first.origin) > first.seq)
        await gateway.close()
        await until(lambda: [one for one in leaves(keeper.parts.database) if one["kind"] == "close"])
        report = verify(keeper.parts, lambda _: None)
        assert report.exit_code == 0, [one for one in report.claims if one.verdict is not Verdict.PASS]
        (check,) = [one for one in health.examine(keeper.parts) if one.name == "log of logs"]
        assert (check.state, "leaves, signed" in check.detail) == ("ok", True)
    async with kept(configuration) as keeper:
        told = [(one["kind"], one["origin"]) for one in leaves(keeper.parts.database)]
        for origin in ("test/gateway-0/1", "test/keeper/1"):
            kinds = [kind for kind, about in told if about == origin]
            assert kinds[0] == "open"
            assert sorted({*kinds}) == ["checkpoint", "close", "open"]
        await settled(keeper)
        await until(lambda: [one["kind"] for one in leaves(keeper.parts.database)].count("open") == 3)
        assert verify(keeper.parts, lambda _: None).exit_code == 0


async def test_doctor_names_a_shard_that_says_nothing_and_was_not_closed(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"log_s": 0.2, "silent_s": 1})
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        begun = await gateway.decide(0)
        await until(lambda: keeper.parts.shipping.rounds.logged_below(begun.origin) > begun.seq)

        def told() -> str:
            (check,) = [one for one in health.examine(keeper.parts) if one.name == "log of logs"]
            return check.detail if check.state == "warn" else ""

        assert begun.origin in await until(told)
        await gateway.close()
        await until(lambda: begun.origin not in told())


async def test_a_second_place_restored_from_a_backup_is_refused_at_start(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"log_s": 0.2})
    place = configuration.data / "ship" / "test_log.checkpoint"
    async with kept(configuration) as keeper:
        await settled(keeper)
        await until(place.exists)
        shutil.copy(place, tmp_path / "old")
        gateway = await Gateway.open(configuration, loans)
        begun = await gateway.decide(0)
        await until(lambda: keeper.parts.shipping.rounds.logged_below(begun.origin) > begun.seq)
    shutil.copy(tmp_path / "old", place)
    async with kept(configuration) as keeper:
        await gateway.decide(1)  # decisions go on, and are shipped and signed in their shard
        await settled(keeper)
        assert any("log of logs" in problem and "published" in problem for problem in keeper.problems())
        (check,) = [one for one in health.examine(keeper.parts) if one.name == "log of logs"]
        assert check.state == "fail"
        size = len(leaves(keeper.parts.database))
        await settled(keeper)
        assert len(leaves(keeper.parts.database)) == size
        broken = verify(keeper.parts, lambda _: None).broken
        assert ("checkpoints", LOG) in {(one.name, one.origin) for one in broken}
    await gateway.close()


async def test_a_damaged_epoch_is_stated_and_the_next_one_opened(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"log_s": 0.2})
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        for number in range(3):
            await gateway.decide(number)
        await settled(keeper)
        rounds = keeper.parts.shipping.rounds
        await until(lambda: rounds.logged_below("test/gateway-0/1") > 0)
        await gateway.close()
        (segment,) = (configuration.data / "journal" / "gateway-0").glob("*.jrn")
        flip(segment, 5000)
        gateway = await Gateway.open(configuration, loans)
        await gateway.decide(3)

        def stated() -> list[tuple[str, str]]:
            return [(one["kind"], one["origin"]) for one in leaves(keeper.parts.database)]

        await until(lambda: ("quarantine", "test/gateway-0/1") in stated())
        await until(lambda: ("open", "test/gateway-0/2") in stated())
        await gateway.close()


async def test_a_running_keeper_has_its_log_cosigned_and_proves_a_decision_up_to_it(
    tmp_path: Path, loans: Loans
) -> None:
    public = Keyring.open(tmp_path / "data", create=True).log.public_key().public_bytes_raw()
    witness = Witness("witness.example/w1", {LOG: public})
    ledger = {"log_s": 0.2, "witnesses": {"quorum": 1, "every_s": 0.2, "witnesses": [witness.settings()]}}
    configuration = written(tmp_path, loans=loans, ledger={**ledger, "copies": "copies"})
    gateway = await Gateway.open(configuration, loans)
    try:
        async with kept(configuration) as keeper:
            appended = await gateway.decide(0)
            origin, seq, leaf = appended.origin, appended.seq, appended.leaf
            database = keeper.parts.database
            await settled(keeper)
            await until(lambda: keeper.parts.shipping.rounds.logged_below(origin) > seq)

            def cosigned() -> Any:
                found = prove_twice(database, origin, seq, public=public)
                return found if found is not None and witness.name.encode() in found.text else None

            proven = await until(cosigned)
            _, upper = check_twice(proven.entry.text, proven.text, leaf=leaf, origin=origin, public=public)
            assert set(cosignatures.cosigned(upper.checkpoint, [parse_witness(witness.vkey)])) == {witness.name}
            listener = Listener(configuration.data, Commands(keeper.parts, keeper).table())
            await listener.start()
            (last,) = [one async for one in command(configuration.data, "receipt-check", {"receipt": appended.receipt})]
            assert (last["exit"], last["result"]["verdict"], last["result"]["in_log_of_logs"]) == (0, "included", True)
            policy = {"v": 1, "logs": [notes.verifier_key(LOG, public)], "witnesses": [witness.vkey]}
            verified = [one async for one in command(configuration.data, "verify", {"trust": policy})][-1]
            told = {one["name"]: one["verdict"] for one in verified["result"]["claims"] if one["origin"] == LOG}
            assert (verified["exit"], told["authenticity"]) == (0, "PASS")
            await listener.close()
            checks = {one.name: one.state for one in health.examine(keeper.parts, keeper.anchoring)}
            assert (checks[f"witness {witness.name}"], checks["anchor copies"]) == ("ok", "ok")
            assert list((tmp_path / "copies" / "test_log").iterdir())
    finally:
        witness.close()
        await gateway.close()
