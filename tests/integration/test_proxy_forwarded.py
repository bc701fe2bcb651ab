"""Proxies before the gateway: whose word is believed, over real sockets."""

from pathlib import Path

import orjson
import pytest

from config.errors import ConfigError
from gateway.lines import LineWriter
from tests.support.upstreams import Asked, Upstream, good
from tests.support.workers import Client, configuration, working

FORGED = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Real-Ip": "192.0.2.7"}


def told(asked: Asked) -> dict[str, str]:
    return {name.lower(): value for name, value in asked.headers if "forward" in name.lower() or "real" in name.lower()}


async def test_what_strangers_say_of_hops_reaches_neither_model_nor_log(tmp_path: Path):
    with (tmp_path / "log").open("wb") as log:
        writer = LineWriter(log.fileno())
        async with Upstream(good) as model:
            made = configuration(tmp_path, model.url, log={"addresses": True})
            async with working(made, writer=writer) as worker, Client.to(worker) as c:
                for _ in range(3):
                    assert (await c.ask(headers={**FORGED, "Forwarded": "for=192.0.2.8"})).status == 200
            assert [told(asked) for asked in model.seen] == [{}] * 3
        writer.close()
    assert {line["address"] for line in lines(tmp_path / "log")} == {"127.0.0.1"}


STANDARD = {"Forwarded": 'for="[2001:db8::1]";proto=https'}


@pytest.mark.parametrize(
    ("header", "named", "heard"),
    [
        ("x-forwarded-for", "192.0.2.7", {"x-forwarded-for": "192.0.2.7, 127.0.0.1", "x-forwarded-proto": "https"}),
        ("forwarded", "2001:db8::1", {"forwarded": "for=127.0.0.1", "x-forwarded-proto": "https"}),
    ],
)
async def test_a_trusted_proxy_names_the_client_in_the_header_that_it_writes_and_in_no_other(
    tmp_path: Path, header: str, named: str, heard: dict[str, str]
):
    proxies = {"trusted_proxies": ["127.0.0.0/8"], "proxy_header": header}
    with (tmp_path / "log").open("wb") as log:
        writer = LineWriter(log.fileno())
        async with Upstream(good) as model:
            made = configuration(tmp_path, model.url, log={"addresses": True}, gateway=proxies)
            async with working(made, writer=writer) as worker, Client.to(worker) as c:
                for _ in range(3):
                    assert (await c.ask(headers=FORGED | STANDARD)).status == 200
            assert [told(asked) for asked in model.seen] == [heard | {"x-real-ip": "192.0.2.7"}] * 3
        writer.close()
    assert [line["address"] for line in lines(tmp_path / "log")] == [named] * 3


async def test_a_head_that_a_proxy_sent_is_not_believed_when_a_stranger_sends_it(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(
            tmp_path, model.url, gateway={"trusted_proxies": ["127.0.0.2"], "proxy_header": "x-forwarded-for"}
        )
        async with working(made) as worker:
            for source in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"):
                async with Client.to(worker, source=source) as c:
                    for _ in range(2):
                        assert (await c.ask(headers=FORGED)).status == 200
        heard = [told(asked).get("x-forwarded-for") for asked in model.seen]
    assert heard == (["192.0.2.7, 127.0.0.2"] * 2 + [None] * 2) * 2


def test_a_proxy_that_is_no_network_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"gateway.trusted_proxies.0: .*expected an address or a network"):
        configuration(tmp_path, "http://127.0.0.1:9", gateway={"trusted_proxies": ["10.0.0.1/8"]})


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"trusted_proxies": ["10.0.0.0/8"]}, "expected forwarded or x-forwarded-for"),
        ({"proxy_header": "forwarded"}, "there are no trusted_proxies"),
    ],
)
def test_which_header_proxies_write_is_said_where_there_are_proxies(
    tmp_path: Path, said: dict[str, object], problem: str
):
    with pytest.raises(ConfigError, match=problem):
        configuration(tmp_path, "http://127.0.0.1:9", gateway=said)


def lines(path: Path) -> list[dict[str, str]]:
    return [known for line in path.read_bytes().splitlines() if (known := orjson.loads(line))["event"] == "exchange"]
