"""What a reason's text may not be (pure): a sentence that names no specific reason, or one that cannot be filled in.

Regulation B, 12 CFR 1002.9(b)(2): "Statements that the adverse action was based on the creditor's internal standards or
policies or that the applicant … failed to achieve a qualifying score on the creditor's credit scoring system are
insufficient." The patterns find the usual ways of saying either. They cannot know whether a text is true or specific
enough; a person answers for the catalogue.
"""

from __future__ import annotations

import re
import string
from typing import Final

PLACEHOLDERS: Final = ("value", "label", "unit")

# whose rules: naming the owner says nothing about the rule
_OWN = (
    r"(?:our|minimum|internal|company|corporate|business|lending|loan|credit|underwriting|eligibility|acceptance|"
    r"approval|bank|(?:bank|lender|creditor|institution)['\u2019]?s)"
)
# "our usual minimum lending criteria" says no more than "our criteria"
_VAGUE = rf"(?:{_OWN}|the|all|any|these|its|their|basic|general|normal|usual|current|required|necessary)"
_RULES = r"(?:polic(?:y|ies)|standards?|guidelines?|criteri(?:a|on)|rules)"
# "the requirements for flood insurance" is specific, "the criteria for approval" is not
_OF_NOTHING_ELSE = r"\b(?!\s+(?:for|of|on)\s+(?!(?:our|approval|acceptance|credit|lending|loans?|a\s+loan|this)\b))"
_SCORE = r"scor(?:es?|ed|ing|ecards?)\b(?!\s+reports?\b)"  # "the credit score report lists …" speaks of the report
_SHORT_OF = (
    r"(?:too\s+(?:low|few|poor|weak)|(?:is|was|are|were|very|quite)\s+(?:low|poor|weak)|lower\s+than|less\s+than|below|"
    r"beneath|short\s+of|insufficient|inadequate|unsatisfactory|not\s+(?:high|good|sufficient|adequate|enough|met|"
    r"reached|achieved)|(?:did|does|do|could)\s*(?:not|n['\u2019]t)\s+(?:meet|reach|achieve|qualify|attain|pass|"
    r"satisfy)|failed|fell\s+short|cut-?\s?off|under\s+(?:our|the|a)\s+(?:minimum|limit|threshold|required|cut))"
)
_WANTING = (
    r"(?:insufficient|inadequate|unsatisfactory|low|lower|poor|weak|not\s+enough|too\s+few|failed|qualifying|passing|"
    r"minimum|required|below|cut-?\s?off)"
)
_MEETS = r"(?:meets?|met|satisf(?:y|ies|ied)|fulfil\w*|pass(?:es|ed)?|outside|match(?:es)?)"
_FILL = r"[^\w{}]|\{\w*\}"  # punctuation and placeholders
_OWNED = (
    r"\b(?:your|the|our|applicant['\u2019]s|overall|internal|external|credit|risk|bureau|is|was|of|system|model|"
    r"result)\b"
)

FORBIDDEN: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # "your score was below our cutoff", "scored below the minimum"
        rf"\b{_SCORE}[^.;]{{0,60}}?\b{_SHORT_OF}\b",
        # "insufficient credit scoring system points", "failed to achieve a qualifying score", "low credit score"
        rf"\b{_WANTING}(?:\s+(?!information|history|data|number|time|activity)[\w'\u2019-]+){{0,4}}\s+{_SCORE}",
        r"\b(?:insufficient|inadequate|not\s+enough|too\s+few)\s+points\b",
        # a score and nothing else: "credit score", "your credit score ({value})"
        rf"^(?:{_FILL}|{_OWNED})*\b{_SCORE}(?:{_FILL}|\d|\b(?:is|was|of|system|model|result|points)\b)*$",
        # "internal policy", "our credit policies", "underwriting guidelines"; an insurer's policy is none of these
        rf"\b(?<!insurance\s){_OWN}(?:\s+{_VAGUE})*\s+{_RULES}{_OF_NOTHING_ELSE}",
        # "does not meet our criteria", "outside the guidelines", "did not satisfy the requirements"
        rf"\b{_MEETS}(?:\s+(?:of|{_VAGUE}))*\s+(?:{_RULES}|requirements?){_OF_NOTHING_ELSE}",
        # "policy reasons", "for reasons of policy", "contrary to policy"
        r"(?<!insurance\s)\bpolicy\s+(?:reasons?|grounds?|decisions?|considerations?)\b",
        rf"\b(?:reasons?|matters?|because|due|against|contrary)\s+(?:of|to)?\s*(?:{_VAGUE}\s+)*polic(?:y|ies)\b",
    )
)


def rendered(text: str, *, value: str, label: str, unit: str) -> str:
    """`text` with its placeholders filled in, runs of blanks made one.

    Raises:
        ValueError: a lone brace, or a placeholder other than ``{value}``, ``{label}`` and ``{unit}`` as they stand.
    """
    filled = []
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"text: {text!r}: {error}") from None
    for literal, field, form, conversion in pieces:
        if "{" in literal or "}" in literal:
            raise ValueError(f"text: {text!r}: expected no brace but those of a placeholder")
        filled.append(literal)
        if field is None:
            continue
        if field not in PLACEHOLDERS or form or conversion:
            raise ValueError(f"text: unknown placeholder {field}; known: {', '.join(PLACEHOLDERS)}, as they stand")
        filled.append({"value": value, "label": label, "unit": unit}[field])
    return " ".join("".join(filled).split())


def is_forbidden(text: str) -> bool:
    """Whether `text` names no specific reason, as far as its words show."""
    plain = " ".join(text.split())
    return any(pattern.search(plain) for pattern in FORBIDDEN)
