"""The command line as a person meets it: what it prints, and its exit codes."""

import contextlib
import io
import json
import os
import socket
from pathlib import Path

import pytest
import structlog
import yaml

from gateway.cli import app as cli
from tests.support.deployment import free_port


def run(*arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command in this process: (exit code, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
    finally:
        os.chdir(before)
        structlog.reset_defaults()  # the command sent this process's logs to the captured standard error
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "answerable.yaml"
    tree = {
        "deployment": "test",
        "gateway": {"port": free_port()},
        "routes": [{"name": "credit", "prefix": "/credit", "upstream": "http://127.0.0.1:9"}],
    }
    path.write_text(yaml.safe_dump(tree))
    return path


def changed(config: Path, **changes: object) -> Path:
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **changes}))
    return config


def test_a_sound_configuration_is_told_with_its_routes_and_digest(config):
    code, out, _ = run("config", "check", str(config))
    assert code == 0
    assert "sound. Routes: credit. Digest: " in out


def test_a_wildcard_that_says_none_after_a_recorded_rule_is_told_as_a_warning(config):
    rules = [{"path": "/score", "as": "decision"}, {"path": "/**", "as": "none"}]
    route = {**yaml.safe_load(config.read_text())["routes"][0], "record": rules}
    code, out, err = run("config", "check", str(changed(config, routes=[route])))
    assert code == 0
    assert "sound." in out
    assert "warning: route credit: /** says none and follows /score" in " ".join(err.split())


def test_a_faulty_configuration_exits_2_and_names_file_and_key(config):
    code, _, err = run("config", "check", str(changed(config, gatewy={})))
    assert code == 2
    assert f"{config}: gatewy: no such key" in err


def test_a_secret_that_is_not_there_exits_2(config):
    route = {**yaml.safe_load(config.read_text())["routes"][0], "upstream_auth": {"secret": "env:ANSWERABLE_NO_SUCH"}}
    code, _, err = run("config", "check", str(changed(config, routes=[route])))
    assert code == 2
    assert "env:ANSWERABLE_NO_SUCH" in err


def test_a_registration_that_cannot_hold_exits_2(config, tmp_path):
    (tmp_path / "model.yaml").write_text("v: 1\n")
    code, _, err = run("config", "check", str(changed(config, models=["model.yaml"])))
    assert code == 2
    assert "model.yaml: name: missing" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--config", "gone.yaml"], "gone.yaml: no configuration there"),
        (["serve", "--config", "answerable.yaml", "--data", "data"], "not both"),
        (["verify", "--data", "nowhere"], "nowhere/answerable.yaml: no configuration there"),
    ],
)
def test_a_configuration_that_is_not_there_exits_2(config, arguments, says):
    code, _, err = run(*arguments, cwd=config.parent)
    assert code == 2
    assert says in err


def test_keys_are_created_listed_and_revoked_and_shown_once(config, tmp_path):
    code, key, _ = run("keys", "create", "--app", "chat", "--config", str(config))
    assert code == 0
    assert key.startswith("ans_")
    assert key.strip() not in (tmp_path / "data" / "applications.json").read_text()
    _, listed, _ = run("keys", "list", "--config", str(config))
    assert "chat" in listed
    key_id = json.loads((tmp_path / "data" / "applications.json").read_text())["keys"][0]["id"]
    assert run("keys", "revoke", key_id, "--config", str(config))[0] == 0
    assert "chat" not in run("keys", "list", "--config", str(config))[1]
    code, _, err = run("keys", "revoke", key_id, "--config", str(config))
    assert code == 2
    assert f"no key {key_id}" in err


def test_a_development_token_needs_a_development_desk(config):
    code, _, err = run("token", "--role", "support", "--config", str(config))
    assert code == 2
    assert "desk.development is not set" in err
    changed(config, desk={"development": True})
    code, token, _ = run("token", "--role", "support", "--config", str(config))
    assert code == 0
    assert token.count(".") == 2
    assert run("token", "--role", "emperor", "--config", str(config))[0] == 2
    assert run("token", "--role", "regulator", "--matter", "{", "--config", str(config))[0] == 2


def test_owning_the_machine_gives_no_right_to_read(config, monkeypatch):
    monkeypatch.delenv("ANSWERABLE_TOKEN", raising=False)
    code, _, err = run("why", "00000000-0000-7000-8000-000000000000", "--purpose", "audit", "--config", str(config))
    assert code == 2
    assert "no desk token" in err


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_before_anything_is_recorded_a_command_says_so_and_exits_2(config, command):
    code, _, err = run(command, "--config", str(config))
    assert code == 2
    assert "nothing is recorded yet" in err
    assert "answerable serve" in err


def test_the_desk_alone_beside_embedded_storage_exits_2_with_advice(config):
    code, _, err = run("desk", "--config", str(config))
    assert code == 2
    assert "answerable serve" in err


@pytest.mark.parametrize("command", [["gateway"], ["demo", "--data", "d"]])
def test_a_port_in_use_exits_2_and_is_named(config, command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if command[0] == "gateway":
            changed(config, gateway={"port": port})
            arguments = [*command, "--config", str(config)]
        else:
            arguments = [*command, "--port", str(port)]
        code, _, err = run(*arguments, cwd=config.parent)
    assert code == 2
    assert str(port) in err
    assert "in use" in err


def test_the_version_is_the_packages(config):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("answerable ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not a trust policy"),
        ('{"v": 1, "logs": []}', "logs: expected at least one"),
        (None, "not a trust policy"),
    ],
)
def test_a_trust_policy_that_is_none_exits_2_and_says_what_is_wrong(config, tmp_path, content, says):
    path = tmp_path / "policy.json"
    if content is not None:
        path.write_text(content)
    code, _, err = run("verify", "--config", str(config), "--trust", str(path))
    assert code == 2
    assert f"{path}: " in err
    assert says in err


def test_what_is_no_receipt_exits_2(config):
    code, _, err = run("receipt", "check", "v1 nothing", "--config", str(config))
    assert code == 2
    assert "not a receipt" in err


def test_every_role_of_the_desk_but_that_of_try_can_be_had_on_a_machine_of_ones_own():
    from gateway.cli.keys import DESK_ROLES
    from gateway.desk.roles import Role

    assert set(DESK_ROLES) == {role.value for role in Role} - {"developer"}


def test_an_administrator_is_printed_schema_accounts_and_grants_and_nothing_is_changed(config, embedded):
    storage = {"profile": "cluster", "url": "http://127.0.0.1:9", "cluster": "evidence", "user": "keeper"}
    code, out, err = run("migrate", "--print-sql", "--config", str(changed(config, storage=storage)))
    assert (code, err) == (0, "")
    assert out.startswith("-- Answerable ")
    assert "CREATE TABLE IF NOT EXISTS entries_local ON CLUSTER `evidence` (" in out
    assert "GRANT ON CLUSTER `evidence` INSERT, SELECT(origin, seq, month, retention, entry, leaf) ON" in out
    assert "--   reader: ALTER USER `answerable_reader` IDENTIFIED WITH sha256_password BY '…' HOST …;" in out
    assert "--   writer: ALTER USER `keeper` " in out
    assert not (config.parent / "data").exists()
    for statement in out.split(";\n\n")[:-1]:
        embedded.rows("SELECT formatQuery({sql:String})", {"sql": statement})


def test_an_embedded_database_has_no_accounts_to_print(config):
    code, _, err = run("migrate", "--print-sql", "--config", str(config))
    assert code == 2
    assert "chdb, which migrates itself and has no accounts" in err


def test_the_password_of_every_account_must_be_there(config):
    accounts = {"reader": {"user": "desk", "password": "env:ANSWERABLE_TEST_NO_SUCH_PASSWORD"}}
    storage = {"profile": "server", "url": "http://127.0.0.1:9", "accounts": accounts}
    code, _, err = run("config", "check", str(changed(config, storage=storage)))
    assert code == 2
    assert "ANSWERABLE_TEST_NO_SUCH_PASSWORD: the environment variable is not set" in err
