"""Baselines: the applicants that a decision is compared with, as a CSV file with one column per feature."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from explainers.errors import ArtifactError
from explainers.features import FLOAT32_MAX
from explainers.models import Rows

ROWS_MAX = 5_000  # shap's time grows with rows times trees: about 0.8 s a decision at 5,000 rows and 500 trees


def read_baseline(content: bytes, features: Sequence[str]) -> Rows:
    """The rows of the CSV file `content`, columns in the order of `features`; shape (n, len(features)).

    The first line names the columns, in any order; an empty cell or ``NaN`` is a missing value.

    Raises:
        ArtifactError: a column is missing, unknown or stands twice, a cell is no number, or there is no row.
    """
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        header = next(lines, [])
        _check_columns(header, features)
        order = [header.index(name) for name in features]
        rows: list[list[float]] = []
        for cells in lines:
            if len(cells) != len(header):
                raise _unusable(f"line {lines.line_num}: expected {len(header)} cells, found {len(cells)}")
            rows.append([_number(cells[at], features[i], lines.line_num) for i, at in enumerate(order)])
            if len(rows) > ROWS_MAX:
                raise _unusable(f"more than {ROWS_MAX} rows")
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unusable(f"not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise _unusable("expected at least one row under the column names")
    return np.asarray(rows, dtype=np.float32)


def _check_columns(header: Sequence[str], features: Sequence[str]) -> None:
    missing = [name for name in features if name not in header]
    unknown = [name for name in header if name not in features]
    if missing:
        raise _unusable(f"missing columns {', '.join(missing)}: expected one column per feature of the artifact")
    if unknown:
        raise _unusable(f"unknown columns {', '.join(unknown)}: expected the features of the artifact only")
    if len(header) != len(features):
        raise _unusable("a column stands twice")


def _number(cell: str, column: str, line: int) -> float:
    if cell.strip() == "":
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        raise _unusable(f"line {line}, column {column}: expected a number or an empty cell") from None
    if abs(value) > FLOAT32_MAX:
        raise _unusable(f"line {line}, column {column}: the number does not fit into float32")
    return value


def _unusable(message: str) -> ArtifactError:
    return ArtifactError(message, code="baseline_unusable", advice="Write the baseline anew; see explainers/README.md.")
