"""Compiles what every call goes through with mypyc, where that is asked for: ``ANSWERABLE_COMPILED=1``.

The sources are Python and run as they are; compiled, a call takes less processor time (load_tests/README.md). Needs
a C compiler, Python's headers and mypy. Everything else about the package stands in pyproject.toml.
"""

import os

from setuptools import setup

# all of one kind, since compiled classes call each other without dictionaries; what inherits from aiohttp stays Python
HOT_PATH = [
    *(
        f"storage/{name}.py"
        for name in (
            "batch",
            "buckets",
            "entries",
            "frames",
            "ids",
            "items",
            "journal",
            "merkle",
            "receipts",
            "seal",
            "segment",
            "segmentfile",
            "unsynced",
            "watermark",
            "writer",
        )
    ),
    *(
        f"gateway/proxy/{name}.py"
        for name in (
            "admission",
            "answerheads",
            "answers",
            "call",
            "callers",
            "calling",
            "counts",
            "direct",
            "exchange",
            "exchangelog",
            "framing",
            "front",
            "handler",
            "headers",
            "heads",
            "intake",
            "lanes",
            "limits",
            "modes",
            "passing",
            "pool",
            "recording",
            "upstream",
        )
    ),
]

if os.environ.get("ANSWERABLE_COMPILED") == "1":
    from mypyc.build import mypycify

    setup(ext_modules=mypycify(HOT_PATH, opt_level="3", group_name="answerable"))
else:
    setup()
