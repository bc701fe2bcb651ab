"""The demo's model behind HTTP, in a process of its own: ``python -m gateway.demo.model_server --registration FILE``.

    POST /score   {"application": {"id": …, "features": {…}}, "applicant": {"reference": …}}
      → 200, header Model-Version, {"decision": "approved"|"denied", "probability": …, "model": …, "model_version": …}
    GET /healthz → 200 {"ok": true}

It stands for the system that a bank already has: it knows nothing of Answerable. Once it listens it prints one JSON
line ``{"port": …}``; SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import signal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xgboost
from aiohttp import web

from config.registration import Registration, load_registration

VERSION_HEADER = "Model-Version"
BODY_BYTES_MAX = 64 * 1024  # an application is about 700 bytes


class UnusableRequestError(Exception):
    """The request is not an application; the text says why."""


class Scorer:
    """The model as the registration describes it."""

    def __init__(self, registration: Registration, artifact: bytes) -> None:
        """Load `artifact`, whose digest the registration names.

        Raises:
            ValueError: it is another artifact.
        """
        if hashlib.sha256(artifact).hexdigest() != registration.digest:
            raise ValueError("the artifact is not the one that the registration names")
        self.registration = registration
        self._booster = xgboost.Booster()
        self._booster.load_model(bytearray(artifact))
        self._booster.set_param({"nthread": 1})
        self._columns = self._booster.feature_names or []

    def score(self, body: bytes) -> dict[str, Any]:
        """The answer to one application.

        Raises:
            UnusableRequestError: it is no JSON, or its features are not the model's.
        """
        values = self._values(body)
        row = np.asarray([[np.nan if value is None else value for value in values]], dtype=np.float32)
        probability = float(self._booster.inplace_predict(row, validate_features=False)[0])
        registration = self.registration
        return {
            "decision": "approved" if probability >= registration.output.cutoff else "denied",
            "probability": probability,
            "model": registration.name,
            "model_version": registration.version,
        }

    def _values(self, body: bytes) -> list[float | None]:
        try:
            features = orjson.loads(body)["application"]["features"]
            differing = sorted(set(features) ^ set(self._columns))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise UnusableRequestError("expected JSON with application.features") from error
        if differing:
            raise UnusableRequestError(f"missing or unknown features: {', '.join(differing)}")
        for name in self._columns:
            if features[name] is not None and type(features[name]) not in {int, float}:
                raise UnusableRequestError(f"{name}: expected a number or null")
        return [features[name] for name in self._columns]


def application(scorer: Scorer) -> web.Application:
    """The server's routes over `scorer`."""

    async def score(request: web.Request) -> web.Response:
        headers = {VERSION_HEADER: scorer.registration.version}
        try:
            answer = scorer.score(await request.read())
        except UnusableRequestError as error:
            return _json({"error": str(error)}, status=400, headers=headers)
        return _json(answer, status=200, headers=headers)

    async def healthz(_: web.Request) -> web.Response:
        return _json({"ok": True}, status=200, headers={})

    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/score", score)
    app.router.add_get("/healthz", healthz)
    return app


def _json(body: dict[str, Any], *, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


async def serve(registration: Path, *, host: str, port: int) -> None:
    """Serve the model of a registration file until SIGTERM or SIGINT; port 0 lets the system choose."""
    described = load_registration(registration)
    scorer = Scorer(described, (registration.parent / described.artifact).read_bytes())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(scorer), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0][1]
        print(orjson.dumps({"port": bound}).decode(), flush=True)  # noqa: T201 (how the starter learns the port)
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.demo.model_server", description="The demo's model over HTTP."
    )
    parser.add_argument("--registration", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(serve(given.registration, host=given.host, port=given.port))


if __name__ == "__main__":
    main()
