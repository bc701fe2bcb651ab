"""Our check of evidence bundles and the verifiers that go with them say the same of everything, good and forged."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from storage.bundlecheck import check_bundle
from tests.integration.test_bundles import Bank, bank, full, loans  # noqa: F401 (fixtures)
from tests.integration.test_desk_browser import CONTRAST
from tests.support.browser import Tab, browsing
from tests.support.forgeries import forged

pytestmark = pytest.mark.asyncio(loop_scope="module")
COUNT = int(os.environ.get("ANSWERABLE_BUNDLES_FORGED", "2000"))
ROUNDS = 4
VERIFIER = Path(str(resources.files("storage"))) / "verifiers" / "verify_bundle.py"


def theirs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_bundle", VERIFIER)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(report: dict[str, Any]) -> tuple[str, ...]:
    return (*(claim["verdict"] for claim in report["claims"]), str(report["exit"]))


RUN = """
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
const { verifyBundle } = await import(process.argv[1]);
for await (const line of createInterface({ input: process.stdin })) {
  const { path, policy } = JSON.parse(line);
  try {
    console.log(JSON.stringify(await verifyBundle(new Uint8Array(readFileSync(path)), policy)));
  } catch (error) {
    console.log(JSON.stringify({ claims: [{ verdict: `threw ${error.stack}` }], exit: -1 }));
  }
}
"""


class Script:
    """The JavaScript verifier, in one process for many bundles."""

    def __init__(self, folder: Path) -> None:
        module = VERIFIER.with_suffix(".mjs").as_uri()
        argv = ["node", "--input-type=module", "-e", RUN, module]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)

    def verify(self, path: Path, policy: bytes | None) -> tuple[str, ...]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018
        asked = {"path": str(path), "policy": None if policy is None else policy.decode()}
        self._process.stdin.write(orjson.dumps(asked) + b"\n")
        self._process.stdin.flush()
        return verdicts(orjson.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._process.stdout.close()


@pytest.mark.needs("node")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_they_agree_on_every_forged_bundle(
    bank: Bank,  # noqa: F811
    full: Path,  # noqa: F811
    tmp_path: Path,
    round_: int,
) -> None:
    module, script, roll = theirs(), Script(tmp_path), random.Random(round_)
    whole, policy = full.read_bytes(), orjson.dumps(bank.policy)
    trusts = [(None, None), (bank.trust, policy), (bank.trust, policy)]
    outcomes: Counter[tuple[str, str]] = Counter()
    path = tmp_path / "forged.zip"
    for number in range(COUNT // ROUNDS):
        kind, raw = forged(whole, roll)
        path.write_bytes(raw)
        trust, brought = roll.choice(trusts)
        ours = verdicts(check_bundle(path, trust).as_json())
        others = {"Python": verdicts(module.verify(str(path), brought)), "JavaScript": script.verify(path, brought)}
        if set(others.values()) != {ours}:
            kept = shutil.copy(path, Path(os.environ.get("ANSWERABLE_KEEP", str(tmp_path))) / f"{round_}-{number}.zip")
            raise AssertionError(f"{kind} {kept}: ours {ours}, others {others}")
        outcomes[kind, ours[-1]] += 1
    script.close()
    total = outcomes.total()
    assert outcomes["valid", "0"] == sum(count for (kind, _), count in outcomes.items() if kind == "valid")
    assert outcomes["valid", "0"] >= 0.05 * total
    assert sum(count for (kind, _), count in outcomes.items() if kind == "semantic") >= 0.3 * total
    assert outcomes["semantic", "1"] > 0.5 * sum(n for (kind, _), n in outcomes.items() if kind == "semantic")


async def test_the_verifier_in_a_bundle_runs_alone_in_an_empty_folder(
    bank: Bank,  # noqa: F811
    full: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(full) as file:
        (tmp_path / "verify_bundle.py").write_bytes(file.read("verifiers/verify_bundle.py"))
    shutil.copy(full, tmp_path / "evidence.zip")
    (tmp_path / "policy.json").write_bytes(orjson.dumps(bank.policy))
    argv = [sys.executable, "-I", "-S", "verify_bundle.py", "evidence.zip", "--trust", "policy.json"]
    done = subprocess.run(argv, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASS") == 4
    done = subprocess.run([*argv, "--json"], cwd=tmp_path, env={}, capture_output=True, timeout=60, check=False)
    told = orjson.loads(done.stdout)
    assert (told["exit"], told["entries"]) == (0, len(zipfile.ZipFile(full).read("entries.jsonl").splitlines()))
    (tmp_path / "evidence.zip").write_bytes(b"nonsense")
    done = subprocess.run(argv, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "not a ZIP file" in done.stdout
    done = subprocess.run(
        [*argv[:-1], "none"], cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "none" in done.stderr) == (2, True)


# RFC 8032 section 7.1, tests 1 and 2: public key, message, R, S
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize("vector", VECTORS)
async def test_its_ed25519_is_that_of_the_specification_and_takes_one_spelling(vector: tuple[str, ...]) -> None:
    holds = theirs().ed25519_holds
    public, message, nonce, scalar = (bytes.fromhex(each) for each in vector)
    assert holds(public, message, nonce + scalar)
    assert not holds(public, message + b"x", nonce + scalar)
    assert not holds(public, message, bytes([nonce[0] ^ 1]) + nonce[1:] + scalar)
    larger = (int.from_bytes(scalar, "little") + ORDER).to_bytes(32, "little")
    assert not holds(public, message, nonce + larger), "S is below the group's order"
    assert not holds(bytes([237]) + b"\xff" * 30 + b"\x7f", message, nonce + scalar), "y is below p"
    assert not holds(bytes([1]) + bytes(30) + b"\x80", message, nonce + scalar), "no x = 0 with a sign"
    assert not holds(public[:31], message, nonce + scalar)


async def put(tab: Tab, selector: str, path: Path) -> None:
    """Choose a file in a file input."""
    document = await tab.call("DOM.getDocument")
    found = await tab.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
    await tab.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(path)])


@pytest.mark.needs("chromium")
async def test_the_page_in_a_bundle_checks_it_in_a_browser_without_a_network(
    bank: Bank,  # noqa: F811
    full: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(full) as file:
        (tmp_path / "verify.html").write_bytes(file.read("verifiers/verify.html"))
    (tmp_path / "policy.json").write_bytes(orjson.dumps(bank.policy))
    (tmp_path / "forged.zip").write_bytes(full.read_bytes()[:-1] + b"x")
    shutil.copy(full, tmp_path / "evidence.zip")
    told = "document.getElementById('verdict').textContent"
    async with browsing(tmp_path / "profile") as tab:
        await tab.go((tmp_path / "verify.html").as_uri())
        for theme in ("light", "dark"):
            await tab.look(width=900, theme=theme)
            assert await tab.run(CONTRAST) == []
        await put(tab, "#bundle", tmp_path / "evidence.zip")
        await put(tab, "#trust", tmp_path / "policy.json")
        await tab.run("document.querySelector('button').click()")
        async with asyncio.timeout(30):
            while "holds" not in str(await tab.run(told)):
                await asyncio.sleep(0.05)
        assert await tab.run("[...document.querySelectorAll('dt')].map(one => one.className)") == ["PASS"] * 4
        assert await tab.run(CONTRAST) == []
        if os.environ.get("ANSWERABLE_KEEP"):
            await tab.picture(Path(os.environ["ANSWERABLE_KEEP"]) / "verify.png")
        await put(tab, "#bundle", tmp_path / "forged.zip")
        await tab.run("document.querySelector('button').click()")
        async with asyncio.timeout(30):
            while "cannot be told" not in str(await tab.run(told)):
                await asyncio.sleep(0.05)
        assert [url for url in tab.asked if not url.startswith("file:")] == []
        assert tab.problems == []
