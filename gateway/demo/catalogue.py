"""What may be said about each feature of the demo's model: labels, directions, values in words, and reason texts.

Labels follow the data's own description. Where `adverse` is stated the model is held to it (`train` makes it monotone):
more (or less) of that feature can never help. Features that may count either way have a text for each side of the
baseline, and one for a value that lies on neither.
"""

from __future__ import annotations

from typing import Any

CATALOGUE_VERSION = "demo-2"
_YES_NO = {"0": "no", "1": "yes"}
_THOUSANDS = "thousand dollars"

FEATURES: tuple[dict[str, Any], ...] = (
    {
        "name": "occ",
        "label": "Use of the property",
        "code": "M01",
        "values": {"1": "the applicant's own home", "2": "not the applicant's home", "3": "not applicable"},
    },
    {
        "name": "unit",
        "label": "Dwelling units in the property",
        "code": "M02",
        "adverse": "higher",
        "bounds": [1, 4],
    },
    {
        "name": "loanamt",
        "label": "Loan amount",
        "unit": _THOUSANDS,
        "factor": "loan_size",
        "code": "M03",
        "bounds": [2, 980],
    },
    {
        "name": "price",
        "label": "Purchase price",
        "unit": _THOUSANDS,
        "factor": "loan_size",
        "code": "M03",
        "immutable": True,
    },
    {
        "name": "apr",
        "label": "Appraised value",
        "unit": _THOUSANDS,
        "factor": "loan_size",
        "code": "M03",
        "immutable": True,
    },
    {
        "name": "loanprc",
        "label": "Loan as a share of the price",
        "unit": "%",
        "factor": "loan_size",
        "code": "M03",
        "adverse": "higher",
        "direction": "decrease",
        "bounds": [2, 260],
    },
    {
        "name": "other",
        "label": "Other financing on the property",
        "unit": _THOUSANDS,
        "code": "M04",
        "bounds": [0, 1020],
    },
    {"name": "term", "label": "Term of the loan", "unit": "months", "code": "M05", "bounds": [6, 480]},
    {"name": "gift", "label": "Gift as down payment", "code": "M06", "adverse": "higher", "values": _YES_NO},
    {
        "name": "appinc",
        "label": "Applicant's yearly income",
        "unit": _THOUSANDS,
        "factor": "income",
        "code": "M07",
        "adverse": "lower",
        "direction": "increase",
        "bounds": [0, 972],
    },
    {
        "name": "atotinc",
        "label": "Applicant's total monthly income",
        "unit": "dollars",
        "factor": "income",
        "code": "M07",
        "adverse": "lower",
        "direction": "increase",
        "bounds": [0, 81000],
    },
    {
        "name": "cototinc",
        "label": "Co-applicant's total monthly income",
        "unit": "dollars",
        "factor": "income",
        "code": "M07",
        "adverse": "lower",
        "direction": "increase",
        "bounds": [0, 41667],
    },
    {
        "name": "hrat",
        "label": "Housing expense as a share of income",
        "unit": "%",
        "code": "M08",
        "adverse": "higher",
        "direction": "decrease",
        "bounds": [1, 72],
    },
    {
        "name": "obrat",
        "label": "All monthly obligations as a share of income",
        "unit": "%",
        "code": "M09",
        "adverse": "higher",
        "direction": "decrease",
        "bounds": [0, 95],
    },
    {
        "name": "liq",
        "label": "Liquid assets",
        "unit": _THOUSANDS,
        "factor": "assets",
        "code": "M10",
        "adverse": "lower",
        "direction": "increase",
    },
    {
        "name": "netw",
        "label": "Net worth",
        "unit": _THOUSANDS,
        "factor": "assets",
        "code": "M10",
        "adverse": "lower",
        "direction": "increase",
    },
    {
        "name": "cons",
        "label": "Payment history on consumer credit",
        "code": "M11",
        "adverse": "higher",
        "immutable": True,
        "values": {
            "1": "no slow accounts",
            "2": "one or two slow accounts",
            "3": "more than two slow accounts",
            "4": "too little history to judge",
            "5": "delinquent, 60 days past due",
            "6": "seriously delinquent, 90 days past due",
        },
    },
    {
        "name": "mortlat1",
        "label": "One or two late mortgage payments",
        "factor": "mortgage_history",
        "code": "M12",
        "adverse": "higher",
        "immutable": True,
        "values": _YES_NO,
    },
    {
        "name": "mortlat2",
        "label": "More than two late mortgage payments",
        "factor": "mortgage_history",
        "code": "M12",
        "adverse": "higher",
        "immutable": True,
        "values": _YES_NO,
    },
    {
        "name": "pubrec",
        "label": "Bankruptcy on record",
        "code": "M13",
        "adverse": "higher",
        "immutable": True,
        "values": _YES_NO,
    },
    {"name": "rep", "label": "Credit reports on file", "code": "M14"},
    {"name": "lines", "label": "Credit lines on the reports", "code": "M15"},
    {"name": "self", "label": "Self-employed", "code": "M16", "values": _YES_NO},
    {
        "name": "cosign",
        "label": "A co-signer",
        "code": "M17",
        "adverse": "lower",
        "direction": "increase",
        "values": _YES_NO,
    },
    {
        "name": "unver",
        "label": "Information that could not be verified",
        "code": "M18",
        "adverse": "higher",
        "direction": "decrease",
        "values": _YES_NO,
    },
    {
        "name": "unem",
        "label": "Unemployment in the applicant's industry",
        "unit": "%",
        "code": "M19",
        "adverse": "higher",
        "immutable": True,
    },
)


def _either_way(what: str, *, higher: str, lower: str, value: str) -> dict[str, str]:
    usual = "than is usual among approved applicants"
    return {
        "when_higher": f"{what} is {higher} {usual} ({value})",
        "when_lower": f"{what} is {lower} {usual} ({value})",
        "text": f"{what} ({value})",
    }


def _kind(text: str) -> dict[str, str]:
    """For a kind of thing, which has no more and no less: true of whatever value it names, on either side."""
    return {"when_higher": text, "when_lower": text, "text": text}


REASONS: dict[str, dict[str, str]] = {
    "M01": _kind("The use of the property: {value}"),
    "M02": {"text": "The property has several dwelling units ({value})"},
    "M03": _either_way("{label}", higher="higher", lower="lower", value="{value} {unit}"),
    "M04": _either_way("Other financing on the property", higher="higher", lower="lower", value="{value} {unit}"),
    "M05": _either_way("The term of the loan", higher="longer", lower="shorter", value="{value} {unit}"),
    "M06": {"text": "Part of the down payment is a gift"},
    "M07": {"text": "Income is low for this loan ({label}: {value} {unit})"},
    "M08": {"text": "Housing expense is high compared with income ({value} {unit})"},
    "M09": {"text": "Monthly obligations are high compared with income ({value} {unit})"},
    "M10": {"text": "Assets are low ({label}: {value} {unit})"},
    "M11": {"text": "Payment history on consumer credit: {value}"},
    "M12": {"text": "Late payments on an earlier mortgage ({label})"},
    "M13": {"text": "A bankruptcy is on record"},
    "M14": {
        "when_higher": "More credit reports on file than is usual among approved applicants ({value})",
        "when_lower": "Fewer credit reports on file than is usual among approved applicants ({value})",
        "text": "The number of credit reports on file ({value})",
    },
    "M15": {
        "when_higher": "More credit lines than is usual among approved applicants ({value})",
        "when_lower": "Fewer credit lines than is usual among approved applicants ({value})",
        "text": "The number of credit lines ({value})",
    },
    "M16": _kind("The kind of employment (self-employed: {value})"),
    "M17": {"text": "There is no co-signer"},
    "M18": {"text": "Some information in the application could not be verified"},
    "M19": {"text": "Unemployment in the applicant's industry is high ({value} {unit})"},
}
