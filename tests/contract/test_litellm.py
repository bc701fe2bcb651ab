"""LiteLLM's proxy as the model's endpoint: an OpenAI-compatible server that is not OpenAI's."""

import pytest

from tests.contract.support import SERVERS, agree, free_port, passed_on, served, understood
from tests.support.protocol_vectors import Vector

pytestmark = [
    pytest.mark.contract,
    pytest.mark.needs("contract-clients", "contract-litellm"),
    pytest.mark.timeout(240),
]


async def test_what_litellm_answers_is_read_as_the_clients_read_it():
    kept: list[tuple[bytes, bytes]] = []
    port = free_port()
    command = ["-m", "litellm.proxy.proxy_cli", "--config", str(SERVERS / "litellm.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    async with (
        served("litellm", command, port, "/health/liveliness") as url,
        passed_on(url, kept) as passing,
    ):
        seen = await understood("gateway_calls", passing.url)
    assert list(seen) == ["chat", "chat-stream", "responses", "message"]
    assert set(seen.values()) == {"VERDICT: deny"}
    for name, (request, answer) in zip(seen, kept, strict=True):
        agree(
            Vector(
                name=f"litellm-{name}",
                origin="litellm 1.106.2 with a mock model; openai 3.54.0 and anthropic 2.12.0 as clients",
                protocol="anthropic" if name == "message" else "openai",
                batch="none",
                extract={"label": {"match": r"VERDICT: (\w+)"}, "favourable": ["approve"], "adverse": ["deny"]},
                request=request,
                answer=answer,
                expected=[{"label": "deny", "favourable": 0, "model": "m"}],
            )
        )
