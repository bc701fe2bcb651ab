import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import config
from config.errors import AnswerableError, ConfigError
from config.load import load
from config.processes import start
from config.registration import load_registration
from config.secrets import reveal

WHOLE = {
    "deployment": "demo",
    "routes": [
        {
            "name": "mortgage",
            "prefix": "/mortgage",
            "upstream": "http://127.0.0.1:9001",
            "extract": {"label": "decision", "favourable": ["approved"], "adverse": ["denied"], "score": "probability"},
        }
    ],
}


def write(folder: Path, tree: object) -> Path:
    path = folder / "answerable.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


ROWS = {**WHOLE["routes"][0], "batch": "rows"}
SERVER = {"profile": "server", "url": "http://x"}
CLUSTER = {"profile": "cluster", "url": "http://x", "cluster": "evidence"}
V2 = "inputs[0].data[7]"


def changed(*steps: str | int, value: object) -> dict:
    tree = yaml.safe_load(yaml.safe_dump(WHOLE))
    place = tree
    for step in steps[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    place[steps[-1]] = value
    return tree


def test_a_whole_configuration_loads_with_its_defaults(tmp_path):
    configuration = load(write(tmp_path, WHOLE), {})
    assert configuration.settings.gateway.port == 8080
    assert configuration.settings.routes[0].record[0].as_ == "decision"
    assert configuration.data == tmp_path / "data"
    assert len(configuration.digest) == 64


@pytest.mark.parametrize(
    "reading",
    [
        "choices[0].message.content",
        {"json": "verdict"},
        {"tool": "decide", "argument": "verdict"},
        {"match": "(?i)verdict: (approved|denied)", "at": "text"},
    ],
)
def test_a_label_can_be_read_in_four_ways_and_the_configuration_says_so_again(tmp_path, reading):
    configuration = load(write(tmp_path, changed("routes", 0, "extract", "label", value=reading)), {})
    label = configuration.settings.routes[0].extract.label
    assert label == reading or label.model_dump(by_alias=True, exclude_none=True) == reading
    assert b'"batch":"none"' in configuration.canonical


def test_the_same_settings_have_the_same_digest_whatever_the_order_of_keys(tmp_path):
    one = load(write(tmp_path, WHOLE), {})
    two = load(write(tmp_path, dict(reversed(WHOLE.items()))), {})
    assert one.digest == two.digest
    assert one.digest != load(write(tmp_path, changed("tenant", value="other")), {}).digest


def test_the_environment_overrides_the_file_and_changes_the_digest(tmp_path):
    path = write(tmp_path, WHOLE)
    configuration = load(path, {"ANSWERABLE__GATEWAY__PORT": "9000", "HOME": "/root"})
    assert configuration.settings.gateway.port == 9000
    assert configuration.digest != load(path, {}).digest


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (changed("gatewy", value={}), "gatewy: no such key"),
        (changed("gateway", "port", value="many"), "gateway.port: input should be a valid integer"),
        (changed("gateway", "port", value=70000), "gateway.port: input should be less than or equal to 65535"),
        (
            changed("retention", value={"default": {"floor_days": 100, "ceiling_days": 10}}),
            "retention.default.floor_days: 100 is above ceiling_days 10",
        ),
        (changed("routes", 0, "retention", value="gone"), "routes.mortgage.retention: no class gone; known: default"),
        (changed("routes", 0, "upstream", value="ftp://x"), "routes.0.upstream: expected http://host"),
        (changed("routes", 0, "extract", "label", value="a["), "routes.0.extract.label: not a JMESPath expression"),
        (changed("routes", 0, "extract", "adverse", value=["approved"]), "approved cannot be favourable too"),
        (
            changed("routes", 0, "extract", "label", value=7),
            "routes.0.extract.label: expected a JMESPath expression, or",
        ),
        (
            changed("routes", 0, "extract", "label", value={"match": "(a)(b)"}),
            "label.match.match: expected at most one",
        ),
        (changed("routes", 0, "extract", "label", value={"match": "(?=a)"}), "not an RE2 expression: invalid perl"),
        (changed("routes", 0, "extract", "label", value={"match": "(a"}), "not an RE2 expression: missing )"),
        (
            changed("routes", 0, "extract", "score", value={"tool": "t", "argument": "a["}),
            "score.tool.argument: not a JM",
        ),
        (changed("routes", 0, "extract", "case", value={"tool": "t", "argument": "a"}), "extract.case: expected"),
        (changed("routes", 0, "extract", "case", value={"match": "a"}), "case.at: say where in the request"),
        (changed("routes", 0, "protocol", value="grpc"), "routes.0.protocol: input should be 'generic', 'openai'"),
        (changed("routes", 0, value={**WHOLE["routes"][0], "protocol": "anthropic", "batch": "rows"}), "has no rows"),
        (changed("routes", 0, "prefix", value="/-/x"), "paths under /-/ belong to the gateway"),
        (changed("routes", 0, "request_headers", value=["Cookie"]), "cookie carries a credential"),
        (changed("routes", value=[]), "routes: tuple should have at least 1 item"),
        (
            changed("routes", value=[*WHOLE["routes"], {**WHOLE["routes"][0], "prefix": "/other"}]),
            "name mortgage stands on more than one route",
        ),
        (changed("callers", value={"mode": "jwt"}), "callers.issuers: mode jwt needs at least one issuer"),
        (
            {**changed("callers", value={"mode": "open"}), "gateway": {"host": "0.0.0.0"}},
            "callers.mode: open is for loopback only",
        ),
        (changed("desk", value={"host": "0.0.0.0", "development": True}), "desk.development: expected false"),
        (changed("desk", value={"host": "0.0.0.0", "developer": True}), "desk.developer: expected false"),
        (changed("desk", value={"developer": True}), "desk.developer: expected false while callers.mode is keys"),
        (changed("routes", 0, "upstream", value="http://127.0.0.1:99999"), "expected a port between 0 and 65535"),
        (changed("desk", value={"port": 8080}), "desk.port: 8080 is the gateway's"),
        (
            changed("routes", 0, "redact", value={"request": [{"path": "a..b", "how": "drop"}]}),
            "routes.0.redact.request.0.path: not a path: expected a name",
        ),
        (
            changed("routes", 0, "redact", value={"request": [{"path": "a", "how": "hash", "last": 4}]}),
            "routes.0.redact.request.0.last: expected with how mask only",
        ),
        (
            changed("routes", 0, "redact", value={"response": 2 * [{"path": "a", "how": "drop"}]}),
            "routes.0.redact.response: a stands there twice",
        ),
        (changed("routes", 0, "redact", value={}), "routes.0.redact: expected at least one of request, response"),
        (changed("routes", 0, "redact", value={"detect": ["ssn"]}), "routes.0.redact.detect.0: input should be 'card'"),
        (
            changed("routes", 0, "redact", value={"headers": [{"name": "X-A", "how": "drop"}]}),
            "routes.0.redact.headers: X-A is not among the headers that are recorded",
        ),
        (
            {**changed("routes", 0, "batch", value="rows"), "gateway": {"rows_max": 1001}},
            "gateway.rows_max: at most 1000 while routes.mortgage.batch is rows",
        ),
        (
            changed("routes", 0, value={**ROWS, "redact": {"request": [{"path": "data[0].x", "how": "drop"}]}}),
            "redact: data[0].x names one of many rows",
        ),
        (
            changed(
                "routes",
                0,
                value={**ROWS, "protocol": "inference-v2", "redact": {"request": [{"path": V2, "how": "drop"}]}},
            ),
            "names one of many rows",
        ),
        (changed("storage", value={"profile": "server"}), "storage.url: profile server needs the address"),
        (changed("storage", value={"profile": "server", "url": "http://x", "password": "hunter2"}), "by reference"),
        (changed("storage", value={"profile": "cloud"}), "storage.url: profile cloud needs the address"),
        (changed("storage", value={**CLUSTER, "cluster": None}), "storage.cluster: the cluster's name, given where"),
        (changed("storage", value={**CLUSTER, "cluster": "a`b"}), "storage.cluster: "),
        (changed("storage", value={"profile": "server", "url": "http://x", "cluster": "c"}), "storage.cluster: the"),
        (changed("storage", value={**CLUSTER, "insert_quorum": 1}), "storage.insert_quorum: expected auto or 2 to 99"),
        (changed("storage", value={**SERVER, "insert_quorum": 2}), "storage.insert_quorum: profile server has no"),
        (changed("storage", value={**SERVER, "user": "a`b"}), "storage.user: "),
        (changed("storage", value={"accounts": {"reader": {"user": "r"}}}), "storage.accounts: profile chdb has no"),
        (changed("storage", value={**SERVER, "accounts": {"owner": {"user": "r"}}}), "storage.accounts.owner: no such"),
        ({"deployment": "demo"}, "routes: missing"),
        ("- a list", "expected keys and values at the top, found list"),
        ("a: [", "not YAML"),
        ("deployment: a\ndeployment: b\n", "'deployment' stands twice"),
        ("tenant: 2026-99-99\n", "not YAML that can be read: month must be in 1..12"),
        (f"gateway: {{port: {'9' * 5000}}}\n", "not YAML that can be read: Exceeds the limit"),
        (f"gateway: {{port: 0x{'f' * 5000}}}\n", "gateway.port: "),
        ("? [a, b]\n: 1\n", "not YAML: found unhashable key"),
        ("? {a: 1}\n: 1\n", "not YAML: found unhashable key"),
        ("a: " + "[" * 3000 + "]" * 3000, "not YAML that can be read: nested too deeply"),
        ("&a {gateway: *a}\n", "gateway.gateway: no such key"),
        ("tenant: !!binary '%%%'\n", "tenant: "),
        ("2026-01-01: x\n", "keys should be strings"),
        ('tenant: "\\ud800"\n', "tenant: "),
        (changed("keeper", "lag_hours", value=float("inf")), "keeper.lag_hours: input should be a finite number"),
        (changed("keeper", "checkpoint_s", value=float("nan")), "keeper.checkpoint_s: input should be a finite number"),
        (changed("keeper", "lag_bytes", value=10**30), "keeper.lag_bytes: input should be less than or equal to"),
        (changed("gateway", "connections_max", value=10**30), "gateway.connections_max: input should be less than"),
        (changed("gateway", "pending_bytes_max", value=10**30), "gateway.pending_bytes_max: input should be less"),
    ],
)
def test_a_fault_is_named_with_file_key_and_what_was_expected(tmp_path, tree, says):
    path = write(tmp_path, tree)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_every_fault_is_told_at_once(tmp_path):
    tree = changed("gateway", value={"port": "many", "workers": 0})
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, tree), {})
    assert len(str(caught.value).splitlines()) == 2


def test_a_faulty_route_is_one_fault_and_not_a_list_that_is_too_short(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, changed("routes", 0, "upstream", value="localhost:9000")), {})
    assert len(str(caught.value).splitlines()) == 1
    assert "routes.0.upstream: expected http://host" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: No such file"):
        load(tmp_path / "nothing.yaml", {})


def test_an_override_that_is_not_yaml_or_has_no_place_is_named(tmp_path):
    path = write(tmp_path, WHOLE)
    with pytest.raises(ConfigError, match="environment ANSWERABLE__TENANT: not YAML"):
        load(path, {"ANSWERABLE__TENANT": "[a"})
    with pytest.raises(ConfigError, match="deployment has no keys to override"):
        load(path, {"ANSWERABLE__DEPLOYMENT__X": "1"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-99-99", "not YAML that can be read: month must be in 1..12"),
        ("9" * 5000, "not YAML that can be read: Exceeds the limit"),
        ("? [a, b]\n: 1", "not YAML: found unhashable key"),
        ("[" * 3000, "not YAML that can be read: nested too deeply"),
        ("{a: 1, a: 2}", "not YAML: the key 'a' stands twice"),
    ],
)
def test_an_override_that_yaml_chokes_on_is_named_by_its_variable(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, WHOLE), {"ANSWERABLE__TENANT": text})
    assert f"environment ANSWERABLE__TENANT: {says}" in str(caught.value)


def test_secrets_come_from_the_environment_or_a_file_and_never_show_in_messages(tmp_path):
    (tmp_path / "key").write_text("s3cret\n")
    assert reveal("file:key", base=tmp_path, environ={}) == "s3cret"
    assert reveal("env:KEY", base=tmp_path, environ={"KEY": " s3cret "}) == "s3cret"
    with pytest.raises(ConfigError, match="env:KEY: the environment variable is not set"):
        reveal("env:KEY", base=tmp_path, environ={})
    with pytest.raises(ConfigError, match="file:gone"):
        reveal("file:gone", base=tmp_path, environ={})
    (tmp_path / "big").write_text("s3cret" * 20_000)
    with pytest.raises(ConfigError) as caught:
        reveal("file:big", base=tmp_path, environ={})
    assert "s3cret" not in str(caught.value)


def test_the_one_error_shape_has_four_keys():
    shape = AnswerableError("it broke", code="broken", status=418, advice="Mend it.").as_json("r-1")
    assert shape == {"error": {"code": "broken", "message": "it broke", "advice": "Mend it.", "request_id": "r-1"}}


def test_a_started_process_has_no_input_and_its_own_group():
    code = "import os,sys; print(os.getpgrp() == os.getpid(), sys.stdin.read() == '')"
    process = start([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
    assert process.communicate(timeout=20)[0].split() == [b"True", b"True"]


REGISTRATION = {
    "v": 1,
    "name": "mortgage",
    "version": "1",
    "artifact": "model.json",
    "digest": "0" * 64,
    "loader": "xgboost-json",
    "baseline": {"file": "baseline.csv", "digest": "0" * 64, "kind": "near_cutoff"},
    "output": {"space": "probability", "cutoff": 0.5},
    "features": [{"name": "obrat", "label": "other obligations", "code": "R01", "adverse": "higher"}],
    "catalogue_version": "1",
    "reasons": {"R01": {"text": "Your other obligations are {value} of your income."}},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"output": {"space": "probability", "cutoff": 1.5}}, "output.cutoff: expected a probability"),
        ({"features": [*REGISTRATION["features"], {"name": "obrat", "label": "b"}]}, "features: obrat stands twice"),
        ({"reasons": {}}, "features.obrat.code: no reason R01"),
        ({"reasons": {"R01": {"text": "Your score was too low"}}}, "names no specific reason"),
        ({"reasons": {"R01": {"text": "Contrary to internal policy"}}}, "names no specific reason"),
        ({"reasons": {"R01": {"text": "{secret}"}}}, "unknown placeholder secret"),
        ({"reasons": {"R01": {"when_higher": "Too many"}}}, "expected text, or both when_higher and when_lower"),
        ({"reasons": {"R01": {"text": "Obligations {"}}}, "reasons.R01.text: 'Obligations {': "),
        ({"features": [{"name": "a", "label": "a", "code": "R01"}]}, "features.a.adverse: expected higher or lower"),
        ({"features": [{"name": "a", "label": "a", "bounds": [0, float("inf")]}]}, "finite number"),
        ({"digest": "abc"}, "digest: string should match pattern"),
        ({"features": [{"name": "a", "label": "a", "bounds": [2, 1]}]}, "bounds: 2.0 is above 1.0"),
        ({"features": [{"name": "a", "label": "a", "immutable": True, "direction": "increase"}]}, "immutable"),
    ],
)
def test_a_registration_that_cannot_hold_is_named(tmp_path, change, says):
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({**REGISTRATION, **change}))
    with pytest.raises(ConfigError, match=r"model\.yaml") as caught:
        load_registration(path)
    assert says in str(caught.value)


def test_columns_of_one_factor_share_their_code(tmp_path):
    path = tmp_path / "model.yaml"
    columns = [{"name": n, "label": n, "factor": "history", "code": c} for n, c in (("a", "R01"), ("b", None))]
    path.write_text(yaml.safe_dump({**REGISTRATION, "features": columns}))
    with pytest.raises(ConfigError, match="factor history already has code R01"):
        load_registration(path)


@pytest.mark.parametrize("name", ["one-host.yaml", "server.yaml", "cluster.yaml"])
def test_the_packaged_examples_load(name):
    path = Path(config.__file__).parent / "examples" / name
    assert load(path, {}).settings.routes
