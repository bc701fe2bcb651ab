"""Requests and answers as real clients and servers wrote them, and what must be found in them.

One JSON file each under tests/vectors/protocols; bodies are text, or base64 where they are not UTF-8.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.route import Route
from storage.protocols import Extractor, spec_of

FOLDER = Path(__file__).parent.parent / "vectors" / "protocols"
_SAID = ("label", "favourable", "score", "case", "features", "model", "error")


@dataclass(frozen=True, kw_only=True)
class Vector:
    name: str
    origin: str
    protocol: str
    batch: str
    extract: dict[str, Any]
    request: bytes
    answer: bytes
    expected: list[dict[str, Any]]  # one for each row; what is absent is not listed

    def extractor(self) -> Extractor:
        route = Route.model_validate(
            {
                "name": "r",
                "prefix": "/r",
                "upstream": "http://h",
                "protocol": self.protocol,
                "batch": self.batch,
                "extract": self.extract,
            }
        )
        spec = spec_of(route, parse_bytes_max=1024 * 1024)
        assert spec is not None
        return Extractor(spec)

    def found(self) -> list[dict[str, Any]]:
        rows = self.extractor().rows(self.request, self.answer)
        return [{name: value for name in _SAID if (value := getattr(row, name)) is not None} for row in rows]


def save(vector: Vector) -> None:
    """Write the vector's file."""
    stated = {
        "origin": vector.origin,
        "protocol": vector.protocol,
        "batch": vector.batch,
        "extract": vector.extract,
        "expected": vector.expected,
        "request": _shown(vector.request),
        "answer": _shown(vector.answer),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{vector.name}.json").write_text(json.dumps(stated, indent=1, ensure_ascii=False) + "\n")


def load(name: str) -> Vector:
    """Read the vector's file."""
    stated = json.loads((FOLDER / f"{name}.json").read_text())
    bodies = {side: _bytes(stated.pop(side)) for side in ("request", "answer")}
    return Vector(name=name, **stated, **bodies)


def names() -> list[str]:
    """Of all vectors."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _shown(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}


def _bytes(shown: dict[str, str]) -> bytes:
    return shown["text"].encode("utf-8") if "text" in shown else base64.b64decode(shown["base64"])
