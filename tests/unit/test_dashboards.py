"""What is handed to Prometheus and Grafana: read by their own parsers, and held to the metrics that are documented.

(`tests/integration/test_metrics.py` holds the documentation to what a running host exposes.)
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.scrapes import documented

CONFIG = Path(__file__).parents[2] / "config"
RULES = CONFIG / "prometheus" / "alerts.yaml"
DASHBOARD = json.loads((CONFIG / "grafana" / "answerable.json").read_text())
SEVERITIES = {"info", "warning", "critical"}
KNOWN = documented()
OWN_LABELS = {"instance", "job", "le"}  # of Prometheus itself


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every series selector in an expression."""
    found: list[promql_parser.VectorSelector] = []

    def see(expression: Any) -> bool:
        if isinstance(expression, promql_parser.VectorSelector):
            found.append(expression)
        return True

    promql_parser.walk(node, see)
    yield from found


def base(name: str) -> str:
    """The metric that a sample belongs to."""
    for ending in ("_bucket", "_sum", "_count"):
        if name.endswith(ending) and name not in KNOWN:
            return name.removesuffix(ending)
    return name


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_parses_and_asks_for_documented_metrics_by_labels_that_they_have(where: str, expression: str):
    asked = list(selectors(promql_parser.parse(expression)))
    assert asked, where
    for selector in asked:
        metric = KNOWN.get(base(selector.name))
        assert metric is not None, f"{where} asks for {selector.name}"
        assert (metric.kind == "histogram") == (base(selector.name) != selector.name), selector.name
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= metric.labels | OWN_LABELS, f"{where} asks {selector.name} by {labels}"


def test_the_parser_and_the_check_notice_what_is_wrong():
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(answerable_answers_total[5m]")
    assert base("answerable_nothing_total") not in KNOWN
    assert [
        one.name for one in selectors(promql_parser.parse("sum(rate(a[5m])) / b > histogram_quantile(0.9, c)"))
    ] == list("abc")


def test_every_metric_is_on_the_dashboard():
    shown = {base(one.name) for _, text in expressions() for one in selectors(promql_parser.parse(text))}
    assert set(KNOWN) - shown == set()


def test_the_dashboards_panels_have_targets_units_sources_and_places_of_their_own():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + column, place["y"] + line) for column in range(place["w"]) for line in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert references, panel["title"]
        assert len(set(references)) == len(references)
        assert all(target["legendFormat"] for target in panel["targets"])
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "instance", "route"]
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("answerable", "Answerable")


def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


# a quiet day: every number as it should be
CALM = {
    'answerable_journal_lost_total{shard="gateway-0"}': "0x200",
    'answerable_journal_shed_total{shard="gateway-0"}': "0x200",
    'answerable_calls_unattended{shard="gateway-0"}': "0x200",
    'answerable_shards_broken_total{shard="gateway-0"}': "0x200",
    'answerable_unshipped_age_seconds{shard="gateway-0"}': "1x200",
    'answerable_checkpoint_age_seconds{shard="gateway-0"}': "2x200",
    "answerable_audit_findings": "0x200",
    'answerable_audit_finished_seconds{span="recent"}': "0+30x200",
    "answerable_disk_used_ratio": "0.4x200",
    'answerable_journal_space_used_ratio{shard="gateway-0"}': "0.5x200",
    'answerable_refused_total{code="key_refused"}': "0+5x200",
    'answerable_refused_total{code="route_busy"}': "3x200",
    'answerable_upstream_available{route="m",replica="a:1",shard="gateway-0"}': "1x200",
    'answerable_failures_total{route="m",code="upstream_timeout"}': "0+1x200",
    'answerable_call_seconds_count{route="m"}': "0+1000x200",
    'answerable_explained_lag_seconds_bucket{le="1.0"}': "0+99x200",
    'answerable_explained_lag_seconds_bucket{le="60.0"}': "0+100x200",
    'answerable_explained_lag_seconds_bucket{le="300.0"}': "0+100x200",
    'answerable_explained_lag_seconds_bucket{le="+Inf"}': "0+100x200",
    "answerable_explanations_oldest_seconds": "3x200",
    'answerable_explanation_failures_total{code="internal"}': "2x200",
    'answerable_process_up{role="keeper"}': "1x200",
    "answerable_control_age_seconds": "5x200",
    'answerable_process_ends_total{role="gateway-0"}': "1x200",
    'answerable_ready{role="gateway-0"}': "1x200",
    "answerable_clickhouse_up": "1x200",
    'answerable_log_lines_dropped_total{role="gateway-0"}': "0x200",
    'answerable_spans_dropped_total{role="gateway-0"}': "0x200",
    'answerable_config_info{role="gateway-0",deployment="d",digest="a"}': "1x200",
    'answerable_config_info{role="keeper",deployment="d",digest="a"}': "1x200",
}
# what changes on the day when the alert must fire
TROUBLE: dict[str, dict[str, str]] = {
    "AnswerableCallsLost": {'answerable_journal_lost_total{shard="gateway-0"}': "0x100 2x100"},
    "AnswerableCallsShed": {
        'answerable_journal_lost_total{shard="gateway-0"}': "0x100 2x100",
        'answerable_journal_shed_total{shard="gateway-0"}': "0x100 2x100",
    },
    "AnswerableCallsUnattended": {'answerable_calls_unattended{shard="gateway-0"}': "0x100 1x100"},
    "AnswerableShardDamaged": {'answerable_shards_broken_total{shard="gateway-0"}': "0x100 1x100"},
    "AnswerableUnshipped": {'answerable_unshipped_age_seconds{shard="gateway-0"}': "0x80 0+30x60"},
    "AnswerableUnshippedLong": {'answerable_unshipped_age_seconds{shard="gateway-0"}': "0+60x200"},
    "AnswerableCheckpointOld": {'answerable_checkpoint_age_seconds{shard="gateway-0"}': "0x80 0+30x60"},
    "AnswerableDisk70": {"answerable_disk_used_ratio": "0.71x200"},
    "AnswerableEvidenceDamaged": {"answerable_audit_findings": "0x100 1x100"},
    "AnswerableAuditLate": {'answerable_audit_finished_seconds{span="recent"}': "0x200"},
    "AnswerableDisk85": {"answerable_disk_used_ratio": "0.86x200"},
    "AnswerableDisk95": {"answerable_disk_used_ratio": "0.96x200"},
    "AnswerableJournalSpace": {'answerable_journal_space_used_ratio{shard="gateway-0"}': "0.8x200"},
    "AnswerableCallsRefused": {'answerable_refused_total{code="journal_full"}': "0+1x200"},
    "AnswerableUpstreamUnavailable": {
        'answerable_upstream_available{route="m",replica="a:1",shard="gateway-1"}': "0x200"
    },
    "AnswerableCallsFailing": {'answerable_failures_total{route="m",code="upstream_timeout"}': "0+100x200"},
    "AnswerableExplanationsLate": {
        'answerable_explained_lag_seconds_bucket{le="1.0"}': "0+10x200",
        'answerable_explained_lag_seconds_bucket{le="60.0"}': "0+20x200",
    },
    "AnswerableExplanationsWaiting": {"answerable_explanations_oldest_seconds": "700x200"},
    "AnswerableExplanationsFailing": {'answerable_explanation_failures_total{code="internal"}': "0+1x200"},
    "AnswerableAbsent": {'answerable_process_up{role="keeper"}': ""},
    "AnswerableProcessDown": {'answerable_process_up{role="keeper"}': "1x100 0x100"},
    "AnswerableKeeperSilent": {"answerable_control_age_seconds": "90x200"},
    "AnswerableProcessRestarting": {'answerable_process_ends_total{role="gateway-0"}': "0x90 0+1x50"},
    "AnswerableNotReady": {'answerable_ready{role="gateway-0"}': "0x200"},
    "AnswerableClickHouseDown": {"answerable_clickhouse_up": "0x200"},
    "AnswerableLogDropped": {'answerable_log_lines_dropped_total{role="gateway-0"}': "0x100 50x100"},
    "AnswerableSpansDropped": {'answerable_spans_dropped_total{role="gateway-0"}': "0+1x200"},
    "AnswerableConfigurationsDiffer": {
        'answerable_config_info{role="keeper",deployment="d",digest="a"}': "0x200",
        'answerable_config_info{role="keeper",deployment="d",digest="b"}': "1x200",
    },
}
AT = "54m"  # of series that begin at 0 and have a sample each 30 s


def test_there_is_a_day_of_trouble_for_every_alert():
    assert set(TROUBLE) == {rule["alert"] for rule in rules()}


@pytest.mark.needs("promtool")
def test_no_alert_fires_on_a_quiet_day_and_each_on_its_day_of_trouble(tmp_path: Path):
    def day(changes: dict[str, str], expression: str, firing: list[dict[str, Any]]) -> dict[str, Any]:
        series = {**CALM, **changes}
        return {
            "interval": "30s",
            "input_series": [{"series": name, "values": values} for name, values in series.items() if values],
            "promql_expr_test": [{"expr": expression, "eval_time": AT, "exp_samples": firing}],
        }

    days = [day({}, "count by (alertname) (ALERTS)", [])]
    for name, changes in TROUBLE.items():
        expression = f'count by (alertname) (ALERTS{{alertstate="firing", alertname="{name}"}} > 0)'
        days.append(day(changes, expression, [{"labels": f'{{alertname="{name}"}}', "value": 1}]))
    tests = tmp_path / "alerts.test.yaml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": days}))
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(tests)]):
        told = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
