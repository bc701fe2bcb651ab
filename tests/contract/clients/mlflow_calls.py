"""Calls with MLflow's own scoring client; prints what it understood of each answer, as JSON by case."""

import json
import sys

import numpy as np
import pandas as pd
import requests
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

# forms of the scoring format that the client has no call for
BY_HAND = {
    "frame-records": {"dataframe_records": [{"id": "a", "income": 3.0}, {"id": "b", "income": None}]},
    "inputs": {"inputs": {"id": ["a", "b"], "income": [3.0, 1.0]}},
    "instances": {"instances": [{"id": "a", "income": 3.0}, {"id": "b", "income": 1.0}]},
}


def main() -> None:
    host, port = sys.argv[1].removeprefix("http://").split(":")
    client = ScoringServerClient(host, int(port))
    frame = pd.DataFrame({"id": ["a", "b"], "income": [3.0, float("nan")]})
    seen = {}
    calls = {
        "frame-split": frame,
        "tensor": np.array([[3.0, 1.0], [0.0, 2.0]]),
    }
    for name, data in calls.items():
        seen[name] = client.invoke(data)["predictions"]
    for name, body in BY_HAND.items():
        answer = requests.post(f"{sys.argv[1]}/invocations", json=body, timeout=30)
        seen[name] = scoring_server.client.PredictionsResponse.from_json(answer.text)["predictions"]
    sys.stdout.write(json.dumps(seen))


main()
