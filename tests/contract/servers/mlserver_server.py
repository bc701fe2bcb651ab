"""MLServer with a small model, on the port given: an Open Inference Protocol V2 server."""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Threshold(MLModel):
    """Approves an income of at least 2."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = next(one for one in payload.inputs if one.name == "income")
        values = [float(value) for value in tensor.data]
        labels = ["approve" if value >= 2 else "deny" for value in values]
        return InferenceResponse(
            model_name=self.name,
            model_version="7",
            outputs=[
                ResponseOutput(name="verdict", shape=[len(labels), 1], datatype="BYTES", data=labels),
                ResponseOutput(name="score", shape=[len(labels)], datatype="FP32", data=[v / 10 for v in values]),
            ],
        )


async def main() -> None:
    settings = Settings(
        host="127.0.0.1", http_port=int(sys.argv[1]), parallel_workers=0, metrics_endpoint=None, grpc_port=0
    )
    await MLServer(settings).start([ModelSettings(name="m", implementation=Threshold)])


if __name__ == "__main__":
    asyncio.run(main())
