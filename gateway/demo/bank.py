"""What a bank's own system does with the gateway: sends each application with its key and keeps what came back."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from gateway.demo.host import HostError

CONCURRENCY = 16  # a branch network's worth of clerks
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One application as the bank remembers it: its reference, the model's answer, and the gateway's two headers."""

    case: str
    label: str
    decision: str
    receipt: str


async def send(
    url: str, key: str, bodies: Sequence[tuple[str, bytes]], on_answer: Callable[[], None]
) -> list[Answered]:
    """POST each (case reference, body) to `url` with the application's `key`; every answer is complete on return.

    Raises:
        HostError: an answer is not 200, or lacks its decision id or receipt.
    """
    limit = asyncio.Semaphore(CONCURRENCY)
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def one(case: str, body: bytes) -> Answered:
            async with limit, session.post(url, data=body) as response:
                answer = await response.read()
                if response.status != 200:
                    raise HostError(f"{url} answered {response.status}: {answer[:300].decode('utf-8', 'replace')}")
                on_answer()
                return _answered(case, response.headers, orjson.loads(answer))

        async with asyncio.TaskGroup() as tasks:
            under_way = [tasks.create_task(one(case, body)) for case, body in bodies]
    return [task.result() for task in under_way]


def _answered(case: str, headers: Any, answer: dict[str, Any]) -> Answered:
    decision, receipt = headers.get("Decision-Id"), headers.get("Decision-Receipt")
    if decision is None or receipt is None:
        raise HostError(f"the answer for {case} carries no Decision-Id or no Decision-Receipt")
    return Answered(case=case, label=answer["decision"], decision=decision, receipt=receipt)
