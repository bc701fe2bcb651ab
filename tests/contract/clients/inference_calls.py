"""Calls with Triton's and KServe's own clients; prints what they understood of each answer, as JSON by case."""

import asyncio
import json
import sys

import numpy as np
import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

IDS, INCOME = np.array(["a", "b"], dtype=object), np.array([[3.0], [1.0]], dtype=np.float32)


def text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def by_triton(url: str, *, binary: bool) -> list[list[object]]:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    inputs = [triton.InferInput("id", [2], "BYTES"), triton.InferInput("income", [2, 1], "FP32")]
    inputs[0].set_data_from_numpy(IDS, binary_data=False)
    inputs[1].set_data_from_numpy(INCOME, binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in ("verdict", "score")]
    answer = client.infer("m", inputs, outputs=outputs, request_id="call-1")
    labels, scores = (answer.as_numpy(name).reshape(-1) for name in ("verdict", "score"))
    return [[text(label), round(float(score), 6)] for label, score in zip(labels, scores, strict=True)]


async def by_kserve(url: str) -> dict[str, object]:
    seen: dict[str, object] = {}
    first = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    rows = {"instances": [{"id": "a", "income": 3.0}, {"id": "b", "income": None}]}
    seen["kserve-v1"] = (await first.infer(url, rows, model_name="m"))["predictions"]
    second = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    inputs = [InferInput("id", [2], "BYTES"), InferInput("income", [2, 1], "FP32")]
    for tensor, values in zip(inputs, (IDS, INCOME), strict=True):
        tensor.set_data_from_numpy(values, binary_data=False)
    answer = await second.infer(url, InferRequest(model_name="m", infer_inputs=inputs), model_name="m")
    labels, scores = (tensor.as_numpy().reshape(-1) for tensor in answer.outputs)
    seen["kserve-v2"] = [[text(a), round(float(b), 6)] for a, b in zip(labels, scores, strict=True)]
    return seen


def main() -> None:
    which, url = sys.argv[1:]
    if which == "mlserver":
        sys.stdout.write(json.dumps({"triton-v2": by_triton(url, binary=False)}))
        return
    seen = asyncio.run(by_kserve(url))
    seen["triton-v2-binary"] = by_triton(url, binary=True)
    sys.stdout.write(json.dumps(seen))


main()
