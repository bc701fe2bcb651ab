"""Real scoring servers asked by their own clients: the adapters find each row as the client understood it."""

import pytest

from tests.contract.support import SERVERS, agree, free_port, passed_on, served, understood
from tests.support.protocol_vectors import Vector

pytestmark = [pytest.mark.contract, pytest.mark.needs("contract-clients"), pytest.mark.timeout(240)]

TOLD = {"favourable": ["approve"], "adverse": ["deny"]}
APPROVED, DENIED = {"label": "approve", "favourable": 1}, {"label": "deny", "favourable": 0}
VERDICTS = [["approve", 0.3], ["deny", 0.1]]
FLOAT32 = {0.3: 0.30000001192092896, 0.1: 0.10000000149011612}  # as servers write them as JSON
BY_NAME = {"label": "verdict", "score": "score", "case": "id"}
ROWS = [{**APPROVED, "score": 0.3, "case": "a"}, {**DENIED, "score": 0.1, "case": "b"}]


def found(
    named: tuple[str, str], extract: dict, bodies: tuple[bytes, bytes], expected: list[dict], *, origin: str
) -> None:
    """True on return: these bytes say what is expected; `named` is the vector's name and its protocol."""
    name, protocol = named
    agree(
        Vector(
            name=name,
            origin=origin,
            protocol=protocol,
            batch="rows",
            extract={**TOLD, **extract},
            request=bodies[0],
            answer=bodies[1],
            expected=expected,
        )
    )


async def test_mlflow_s_client_and_server_and_the_adapter_understand_the_same():
    kept: list[tuple[bytes, bytes]] = []
    port = free_port()
    async with (
        served("clients", [str(SERVERS / "mlflow_server.py"), str(port)], port, "/ping") as url,
        passed_on(url, kept) as passing,
    ):
        seen = await understood("mlflow_calls", passing.url)
    missing = [ROWS[0], {**ROWS[1], "score": 0.0}]
    tensor = [{**DENIED, "score": 0.1}, {**APPROVED, "score": 0.2}]
    expected = {"frame-split": missing, "tensor": tensor, "frame-records": missing, "inputs": ROWS, "instances": ROWS}
    assert set(seen) == set(expected)
    origin = "mlflow 3.17.2: its scoring server, and its client where that has a call for this form"
    for (name, told), bodies in zip(seen.items(), kept, strict=True):
        assert [(row["verdict"], row["score"]) for row in told] == [(r["label"], r["score"]) for r in expected[name]]
        by = {key: value for key, value in BY_NAME.items() if key != "case" or name != "tensor"}
        found((f"mlflow-{name}", "mlflow"), by, bodies, expected[name], origin=origin)


async def test_kserve_s_and_triton_s_clients_and_the_adapters_understand_the_same():
    kept: list[tuple[bytes, bytes]] = []
    port = free_port()
    async with (
        served("clients", [str(SERVERS / "kserve_server.py"), str(port)], port, "/v2/health/ready") as url,
        passed_on(url, kept) as passing,
    ):
        seen = await understood("inference_calls", "kserve", passing.url)
    assert seen == {"kserve-v1": ["approve", "deny"], "kserve-v2": VERDICTS, "triton-v2-binary": VERDICTS}
    first, second, binary = kept
    origin = "kserve 0.21.0: its model server and REST client"
    labelled = [{**APPROVED, "case": "a"}, {**DENIED, "case": "b"}]
    found(("kserve-v1", "kserve-v1"), {"label": "@", "case": "id"}, first, labelled, origin=origin)
    precise = [{**row, "score": FLOAT32[row["score"]], "model": "7"} for row in ROWS]
    whole = [{**row, "features": {"income": income}} for row, income in zip(precise, (3.0, 1.0), strict=True)]
    by = {**BY_NAME, "features": "{income: income}"}
    found(("kserve-v2", "inference-v2"), by, second, whole, origin=origin)
    assert b"\x00" in binary[0], "this request goes on in binary behind its JSON"
    origin = "tritonclient 2.73.0 on kserve 0.21.0's model server"
    found(("triton-v2-binary", "inference-v2"), BY_NAME, binary, precise, origin=origin)


@pytest.mark.needs("contract-mlserver")
async def test_mlserver_s_answers_are_read_as_triton_s_client_reads_them():
    kept: list[tuple[bytes, bytes]] = []
    port = free_port()
    async with (
        served("mlserver", [str(SERVERS / "mlserver_server.py"), str(port)], port, "/v2/models/m/ready") as url,
        passed_on(url, kept) as passing,
    ):
        seen = await understood("inference_calls", "mlserver", passing.url)
    assert seen == {"triton-v2": VERDICTS}
    origin = "tritonclient 2.73.0 on mlserver 1.7.1"
    rows = [{**row, "model": "7"} for row in ROWS]
    found(("triton-v2-mlserver", "inference-v2"), BY_NAME, kept[-1], rows, origin=origin)
