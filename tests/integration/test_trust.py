"""Authenticity: who says so, by keys that the verifier brought; time stamps by `openssl ts`; copies that know more."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config.ledger import Timestamps
from gateway.keeper.outside import Copying, Stamping
from storage import anchors, notes, timestamps
from storage.audit import audit
from storage.clickhouse import Database
from storage.errors import Unverifiable
from storage.findings import Claim, Verdict
from storage.trust import TrustPolicy
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_witnesses import LOG, Anchoring, witnesses  # noqa: F401 (a fixture)
from tests.support.tsa import Authority
from tests.support.witness import Witness

MINE = notes.verifier_key(LOG, PUBLIC)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    made = Authority(tmp_path / "tsa")
    yield made
    made.close()


def policy(*trusted: Witness, quorum: int = 1, **more: Any) -> TrustPolicy:
    keys = [one.vkey for one in trusted]
    return TrustPolicy.parse({"v": 1, "logs": [MINE], "witnesses": keys, "quorum": quorum, **more})


def claims(database: Database, trust: TrustPolicy, name: str = "authenticity") -> list[Claim]:
    report = audit(database, public=PUBLIC, trust=trust)
    return [one for one in report.claims if one.origin == LOG and one.name == name]


def verdict(database: Database, trust: TrustPolicy) -> tuple[Verdict, str]:
    (claim,) = claims(database, trust)
    return claim.verdict, claim.detail


async def cosigned(tmp_path: Path, database: Database, *asked: Witness) -> Anchoring:
    made = Anchoring(tmp_path, database, *asked)
    made.grow(3)
    await made.ask()
    made.grow(1)
    return made


async def test_enough_witnesses_that_the_verifier_knows_make_it_authentic(
    database: Database,
    tmp_path: Path,
    witnesses: Callable[..., Witness],  # noqa: F811
) -> None:
    one, two, stranger = witnesses("w1"), witnesses("w2"), witnesses("w3")
    await cosigned(tmp_path, database, one, two)
    told, detail = verdict(database, policy(one, two, quorum=2))
    assert told is Verdict.PASS, detail
    assert detail == f"signed by the key you trust, 5 leaves; 4 of them cosigned by {one.name}, {two.name}"
    assert verdict(database, policy(one, stranger, quorum=1))[0] is Verdict.PASS
    assert verdict(database, policy(one, stranger, quorum=2))[0] is Verdict.FAIL
    assert verdict(database, policy(quorum=0))[0] is Verdict.PASS
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    theirs = TrustPolicy.parse({"v": 1, "logs": [notes.verifier_key("other/log", other)]})
    assert verdict(database, theirs)[0] is Verdict.UNKNOWN
    wrong = TrustPolicy.parse({"v": 1, "logs": [notes.verifier_key(LOG, other)]})
    assert verdict(database, wrong)[0] is Verdict.FAIL


@pytest.mark.parametrize("hides", [True, False], ids=["cosignatures deleted", "cosignatures left"])
async def test_a_log_rewritten_and_signed_again_with_the_stolen_key_is_shown_by_the_witness_alone(
    embedded: Database,
    tmp_path: Path,
    witnesses: Callable[..., Witness],  # noqa: F811
    hides: bool,
) -> None:
    one = witnesses()
    await cosigned(tmp_path / "honest", embedded, one)
    for table in ("log", "checkpoints", *(("anchors",) if hides else ())):
        embedded.command(f"TRUNCATE TABLE {table}")
    thief = Anchoring(tmp_path / "rewritten", embedded)  # the same key, other entries
    thief.grow(4)
    mine = [one for one in audit(embedded, public=PUBLIC).claims if one.origin == LOG]
    assert {claim.verdict for claim in mine if claim.name in ("log", "tree", "checkpoints")} <= {
        Verdict.PASS,
        Verdict.UNKNOWN,
    }
    told, detail = verdict(embedded, policy(one))
    assert (told, "does not verify" in detail) == (Verdict.FAIL, not hides)


def test_a_trust_policy_in_another_form_is_refused() -> None:
    good: dict[str, Any] = {"v": 1, "logs": [MINE]}
    assert TrustPolicy.parse(good).quorum == 0
    for wrong in (
        None,
        [],
        {},
        {**good, "v": 2},
        {**good, "extra": 1},
        {"v": 1, "logs": []},
        {"v": 1, "logs": "x"},
        {**good, "quorum": 1},
        {**good, "quorum": True},
        {**good, "witnesses": [MINE]},
        {**good, "timestamp_roots": ["no PEM"]},
    ):
        with pytest.raises(Unverifiable):
            TrustPolicy.parse(wrong)


async def stamped(database: Database, made: Anchoring, authority: Authority) -> Stamping:
    settings = Timestamps.model_validate({"url": authority.url})
    stamping = Stamping(settings, made.rounds, database)
    assert made.rounds.published is not None
    async with aiohttp.ClientSession() as session:
        await stamping.stamp(session, made.rounds.published)
    return stamping


async def test_a_time_stamp_by_openssl_is_kept_and_verified_by_both(
    database: Database, tmp_path: Path, authority: Authority
) -> None:
    made = Anchoring(tmp_path / "a", database)
    made.grow(2)
    stamping = await stamped(database, made, authority)
    assert (stamping.tried.problem, stamping.tried.size) == (None, 3)
    (token,) = anchors.of_size(database, LOG, 3, anchors.TIMESTAMP).values()
    note = anchors.checkpoint_note(database, LOG, 3)
    assert note is not None
    roots = timestamps.certificates(authority.root)
    text = notes.parse(note).text.encode()
    assert authority.checks(token, text)
    assert timestamps.verify(token, note, roots) == timestamps.stated(token)
    assert not authority.checks(token, text + b"x")
    other = notes.sign(text.decode().replace("\n3\n", "\n4\n"), name=LOG, key=KEY)
    with pytest.raises(Unverifiable):
        timestamps.verify(token, other, roots)
    told, detail = verdict(database, policy(quorum=0, timestamp_roots=[authority.root]))
    assert (told, "3 of them time-stamped at" in detail) == (Verdict.PASS, True)


async def test_a_token_by_another_authority_or_of_another_checkpoint_is_no_proof(
    embedded: Database, tmp_path: Path, authority: Authority
) -> None:
    other = Authority(tmp_path / "other")
    other.close()
    made = Anchoring(tmp_path / "a", embedded)
    made.grow(2)
    wanting = policy(quorum=0, timestamp_roots=[authority.root])
    assert verdict(embedded, wanting) == (Verdict.FAIL, "no checkpoint is time-stamped")
    await stamped(embedded, made, authority)
    assert verdict(embedded, policy(quorum=0, timestamp_roots=[other.root]))[0] is Verdict.FAIL
    (token,) = anchors.of_size(embedded, LOG, 3, anchors.TIMESTAMP).values()
    made.grow(1)
    moved = anchors.Anchor(origin=LOG, size=4, kind=anchors.TIMESTAMP, name="tsa", ts_ns=0, data=token)
    anchors.keep(embedded, moved)
    assert verdict(embedded, wanting)[0] is Verdict.FAIL


async def test_an_authority_that_answers_something_else_is_not_believed(
    embedded: Database, tmp_path: Path, authority: Authority
) -> None:
    made = Anchoring(tmp_path / "a", embedded)
    made.grow(2)
    stamping = await stamped(embedded, made, authority)
    (old,) = anchors.of_size(embedded, LOG, 3, anchors.TIMESTAMP).values()
    embedded.command("TRUNCATE TABLE anchors")
    authority.answer = old  # over the same text, in answer to another nonce
    assert "another question" in ((await stamped(embedded, made, authority)).tried.problem or "")
    assert anchors.of_size(embedded, LOG, 3, anchors.TIMESTAMP) == {}
    made.grow(1)
    for answer in (b"", b"nonsense", old, old + b"x" * timestamps.ANSWER_BYTES_MAX):
        authority.answer = answer
        stamping = await stamped(embedded, made, authority)
        assert stamping.tried.problem
        assert stamping.tried.failures == 1
        assert anchors.of_size(embedded, LOG, 4, anchors.TIMESTAMP) == {}
    authority.close()
    assert (await stamped(embedded, made, authority)).tried.problem


def test_copies_are_written_once_and_a_larger_one_refuses_an_older_backup(embedded: Database, tmp_path: Path) -> None:
    made = Anchoring(tmp_path / "a", embedded)
    made.grow(2)
    copying = Copying(tmp_path / "copies", made.rounds)
    assert made.rounds.published is not None
    copying.copy(made.rounds.published)
    (copy,) = (tmp_path / "copies" / "acme_log").iterdir()
    assert (copy.name, copy.read_bytes()) == (f"{3:020d}.checkpoint", made.rounds.published.note)
    copying.copy(made.rounds.published)  # once more changes nothing
    assert copying.tried.problem is None
    for table in ("log", "checkpoints"):
        embedded.command(f"TRUNCATE TABLE {table}")
    older = Anchoring(tmp_path / "b", embedded)
    Copying(tmp_path / "copies", older.rounds)
    older.grow(1)
    assert "a copy has a tree of 3, ours has 0" in (older.rounds.problem or "")
    forked = Anchoring(tmp_path / "c", embedded)
    forked.grow(2)
    assert forked.rounds.published is not None
    Copying(tmp_path / "copies", forked.rounds).copy(forked.rounds.published)
    assert "another root" in (forked.rounds.problem or "")
    copy.write_bytes(b"not a note")
    damaged = Anchoring(tmp_path / "d", embedded)
    Copying(tmp_path / "copies", damaged.rounds)
    damaged.grow(1)
    assert damaged.rounds.problem
