"""KServe's own model server with a small model for V1 and V2, on the port given."""

import sys
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class Threshold(Model):
    """Approves an income of at least 2."""

    def __init__(self) -> None:
        super().__init__("m")
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if isinstance(payload, dict):
            return {"predictions": [verdict(row["income"]) for row in payload["instances"]]}
        request: InferRequest = payload
        income = next(tensor for tensor in request.inputs if tensor.name == "income").as_numpy()
        labels = np.array([verdict(value) for value in income.reshape(-1)], dtype=object)
        outputs = [
            InferOutput(name="verdict", shape=list(labels.shape), datatype="BYTES"),
            InferOutput(name="score", shape=list(income.shape), datatype="FP32"),
        ]
        outputs[0].set_data_from_numpy(labels, binary_data=False)
        outputs[1].set_data_from_numpy((income / 10).astype(np.float32), binary_data=False)
        return InferResponse(generate_uuid(), "m", outputs, model_version="7")


def verdict(income: float | None) -> str:
    return "approve" if income is not None and income >= 2 else "deny"


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Threshold()])
