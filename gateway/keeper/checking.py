"""`models check`: a registration's model run on recorded decisions, and whether it answers as they were answered.

What comes out names decisions and scores, nothing that a person said. Blocking; loads xgboost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from config.errors import ConfigError
from explainers.comparison import Comparison, Recorded, compare
from explainers.registry import check
from gateway.keeper.hosting import open_stored
from gateway.keeper.parts import Parts
from gateway.keeper.study import extractors
from gateway.keeper.threads import Tell
from storage import queries

_LATEST: Final = """
SELECT origin, seq, route FROM decisions
WHERE model_name = {model:String} AND status >= 200 AND status < 300 AND stream = 'complete'
ORDER BY ts DESC LIMIT {limit:UInt32}
"""


def check_model(parts: Parts, path: Path, *, last: int, tell: Tell) -> Comparison:
    """Compare the model of the registration at `path` with the `last` recorded decisions of its name.

    Raises:
        ConfigError: the file is faulty, or no decision of that model is on record.
    """
    tell({"state": "checking artifact and baseline"})
    checked = check(path)
    name = checked.registration.name
    compared = compare(checked, _recorded(parts, name, last, tell))
    if not compared.total:
        raise ConfigError(f"{path}: no decision by a model {name} is on record", advice="Send some calls first.")
    return compared


def _recorded(parts: Parts, model: str, last: int, tell: Tell) -> Iterator[Recorded]:
    settings = parts.configuration.settings
    known = extractors({route.name: route for route in settings.routes}, settings.gateway)
    places = parts.database.rows(_LATEST, {"model": model, "limit": last})
    for number, (origin, seq, route) in enumerate(places, 1):
        tell({"compared": number, "of": len(places)})
        stored, extractor = queries.entry(parts.database, origin, seq), known.get(route)
        if stored is None or extractor is None:
            continue
        plain = open_stored(parts.database, parts.keyring, stored.entry)
        if "response" in plain:  # else it was erased
            found = extractor.extract(plain.get("request", b""), plain["response"])
            yield Recorded(decision=stored.id, features=found.features or {}, score=found.score)
