"""MLflow's own scoring server with a small model, on the port given."""

import sys
import tempfile

import mlflow.pyfunc
import uvicorn
from mlflow.pyfunc import scoring_server


class Threshold(mlflow.pyfunc.PythonModel):
    """Approves an income of at least 2; the answer has a label and a score for each row."""

    def predict(self, context, model_input, params=None):
        import pandas as pd

        frame = pd.DataFrame(model_input)
        income = frame[frame.columns[-1]].fillna(0).astype(float)
        return pd.DataFrame(
            {"verdict": ["approve" if value >= 2 else "deny" for value in income], "score": income / 10}
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(f"{folder}/model", python_model=Threshold(), pip_requirements=[])
        app = scoring_server.init(mlflow.pyfunc.load_model(f"{folder}/model"))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


main()
