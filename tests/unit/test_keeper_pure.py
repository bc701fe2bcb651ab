"""The keeper's pure parts: progress, extraction sheets, explanation policy, the control file."""

import base64
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from config.route import Route
from gateway import control
from gateway.keeper import health, policy, sheets
from gateway.keeper.progress import Progress

ORIGIN = "bank/gateway-0/1"
OWN = "bank/keeper/1"


def extraction(first: int, last: int, route: str = "mortgage") -> dict[str, object]:
    return {
        "kind": "extraction",
        "tenant": "default",
        "route": route,
        "source": {"origin": ORIGIN, "first": first, "last": last},
    }


def explanation(seq: int) -> dict[str, object]:
    return {"kind": "explanation", "tenant": "default", "route": "mortgage", "source": {"origin": ORIGIN, "seq": seq}}


def test_an_extraction_entry_covers_its_own_tenant_and_route_only() -> None:
    progress = Progress()
    progress.apply(OWN, 0, extraction(3, 7))
    assert progress.is_extracted(ORIGIN, ("default", "mortgage"), 7)
    assert not progress.is_extracted(ORIGIN, ("default", "mortgage"), 8)
    assert not progress.is_extracted(ORIGIN, ("default", "chat"), 7)
    assert not progress.is_extracted("bank/gateway-1/1", ("default", "mortgage"), 7)


def test_an_own_entry_that_was_applied_before_changes_nothing() -> None:
    progress = Progress()
    assert progress.apply(OWN, 0, explanation(4))
    progress.of(ORIGIN).raise_to(5)
    assert not progress.apply(OWN, 0, explanation(9))
    assert 9 not in progress.of(ORIGIN)


def test_a_new_epoch_of_the_own_journal_counts_from_its_start() -> None:
    progress = Progress()
    progress.apply(OWN, 41, explanation(4))
    assert progress.apply("bank/keeper/2", 0, explanation(6))
    assert 4 in progress.of(ORIGIN)
    assert 6 in progress.of(ORIGIN)


def test_an_unknown_snapshot_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        Progress.from_json({"v": 2})


steps = st.lists(
    st.one_of(
        st.tuples(st.just("extraction"), st.integers(0, 50), st.sampled_from(["mortgage", "chat"])),
        st.tuples(st.just("explanation"), st.integers(0, 50), st.just("")),
        st.tuples(st.just("low"), st.integers(0, 50), st.just("")),
        st.tuples(st.just("below"), st.integers(0, 50), st.just("")),
    ),
    max_size=40,
)


@given(steps, st.integers(0, 40))
def test_a_snapshot_taken_anywhere_and_the_rest_of_the_journal_say_the_same_as_the_whole(
    actions: list[tuple[str, int, str]], cut: int
) -> None:
    def run(progress: Progress, part: list[tuple[int, tuple[str, int, str]]]) -> Progress:
        for seq, (what, number, route) in part:
            if what == "extraction":
                progress.apply(OWN, seq, extraction(number, number, route))
            elif what == "explanation":
                progress.apply(OWN, seq, explanation(number))
            elif what == "low":
                progress.of(ORIGIN).raise_to(number)
            else:
                progress.extracted_to(ORIGIN, number)
        return progress

    numbered = list(enumerate(actions))
    whole = run(Progress(), numbered)
    before = run(Progress(), numbered[:cut])
    restored = Progress.from_json(orjson.loads(orjson.dumps(before.as_json())))
    after = run(restored, numbered)  # reads again what the snapshot already holds
    for seq in range(52):
        for route in ("mortgage", "chat"):
            scope = ("default", route)
            assert after.is_extracted(ORIGIN, scope, seq) == whole.is_extracted(ORIGIN, scope, seq)
        assert (seq in after.of(ORIGIN)) == (seq in whole.of(ORIGIN))


SCOPE = sheets.Scope(ORIGIN, "default", "mortgage", "digest")


def row(label: str = "approved") -> sheets.Row:
    return ("id", "leaf", label, 1, 0.5, None, None, None)


def test_a_sheet_is_full_at_256_rows() -> None:
    gathered = sheets.Sheets()
    full = [sheet for seq in range(600) for sheet in gathered.add(SCOPE, seq, row(), now_ns=1)]
    assert [(sheet.first, sheet.last, len(sheet.rows)) for sheet in full] == [(0, 255, 256), (256, 511, 256)]
    assert [(sheet.first, sheet.last) for sheet in gathered.take_all()] == [(512, 599)]


@given(st.lists(st.integers(0, 3_000), max_size=120))
def test_no_sheet_is_larger_than_an_entry_holds_and_no_row_is_lost(sizes: list[int]) -> None:
    gathered = sheets.Sheets()
    done = [sheet for seq, size in enumerate(sizes) for sheet in gathered.add(SCOPE, seq, row("x" * size), now_ns=1)]
    done += gathered.take_all()
    assert all(len(orjson.dumps(sheet.fields())) < 61_000 for sheet in done)
    assert [len(r[2] or "") for sheet in done for r in sheet.rows] == sizes
    assert sum(sheet.last - sheet.first + 1 for sheet in done) == len(sizes)


def test_a_sheet_is_due_by_the_age_of_its_first_row() -> None:
    gathered = sheets.Sheets()
    gathered.add(SCOPE, 0, row(), now_ns=100)
    gathered.add(SCOPE, 1, row(), now_ns=900)
    assert gathered.take_due(before_ns=100) == []
    assert [sheet.last for sheet in gathered.take_due(before_ns=101)] == [1]
    assert len(gathered) == 0


def test_ever_new_scopes_close_sheets_instead_of_taking_memory() -> None:
    gathered = sheets.Sheets()
    for number in range(sheets.SHEETS_MAX + 1):
        full = gathered.add(sheets.Scope(ORIGIN, f"tenant-{number}", "r", "d"), number, row(), now_ns=1)
    assert len(full) == sheets.SHEETS_MAX
    assert len(gathered) == 1


def test_clipping_cuts_between_characters() -> None:
    assert sheets.clipped("Grüße", 4) == "Grü"
    assert sheets.clipped("Grüße", 3) == "Gr"
    assert sheets.clipped("abc", 3) == "abc"


def route(when: str = "always", model: bool = True) -> Route:
    tree = {"name": "mortgage", "prefix": "/m", "upstream": "http://127.0.0.1:9", "explain": {"when": when}}
    return Route.model_validate(tree | ({"model": {"name": "mortgage"}} if model else {}))


def answered(**changes: object) -> dict[str, object]:
    return {"status": 200, "error": None, "stream": {"state": "complete", "streamed": False, "bytes": 2}} | changes


def test_the_policy_leaves_out_what_has_no_answer_no_model_or_no_wish_to_explain() -> None:
    assert policy.judge(answered(), 1, route()) == "explain"
    assert policy.judge(answered(), 1, route("adverse")) == "skip"
    assert policy.judge(answered(), 0, route("adverse")) == "explain"
    assert policy.judge(answered(), 0, route("never")) == "skip"
    assert policy.judge(answered(), 0, route(model=False)) == "skip"
    assert policy.judge(answered(), 0, None) == "skip"
    assert policy.judge(answered(status=502), 0, route()) == "skip"
    assert policy.judge(answered(error="upstream_cut"), 0, route()) == "skip"
    assert policy.judge(answered(stream={"state": "gateway_lost"}), 0, route()) == "skip"


def test_a_label_that_could_not_be_read_may_be_adverse_and_is_explained() -> None:
    assert policy.judge(answered(), None, route("adverse")) == "explain"
    assert policy.urgency(0) < policy.urgency(None) < policy.urgency(1)


def test_the_control_file_is_signed_over_the_bytes_of_its_first_line() -> None:
    key = Ed25519PrivateKey.generate()
    written = control.render(deployment="bank", seq=7, ts_ns=1, config="ab", sign=key.sign)
    line, signature, rest = written.split(b"\n")
    key.public_key().verify(base64.b64decode(signature), line)
    assert rest == b""
    assert orjson.loads(line)["seq"] == 7


def test_control_numbers_never_go_back_not_even_after_a_damaged_file(tmp_path) -> None:
    path = tmp_path / "control.json"
    assert control.next_seq(path, now_s=1_000) == 1_000
    path.write_bytes(control.render(deployment="b", seq=5_000, ts_ns=1, config="", sign=lambda _: b"s"))
    assert control.next_seq(path, now_s=1_000) == 5_001
    path.write_bytes(b"\x00\x00")
    assert control.next_seq(path, now_s=9_000) == 9_000


@pytest.mark.parametrize(
    ("free_gib", "state", "says"),
    [
        (500, "ok", ""),
        (4, "ok", ""),
        (1.1, "warn", "nothing is shed yet"),
        (0.5, "warn", "best_effort calls are shed"),
        (0.1, "fail", "calls are refused"),
    ],
)
def test_doctor_judges_the_disk_by_the_levels_at_which_workers_act(free_gib: float, state: str, says: str) -> None:
    found = health.disk(Path("/data"), free_bytes=int(free_gib * 2**30), total_bytes=1000 * 2**30)
    assert found.state == state
    assert says in found.detail


def test_the_control_file_says_what_to_close_and_only_its_signer_is_believed() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    roll = {"bank/gateway-1/1": 7, "bank/gateway-0/3": 0}
    written = control.render(deployment="bank", seq=9, ts_ns=5, config="ab", sign=key.sign, roll=roll)
    found = control.parse(written, deployment="bank", public=public)
    assert found == control.Control(seq=9, ts_ns=5, config="ab", roll=roll)
    for raw, deployment in (
        (written, "shop"),
        (written.replace(b'"seq":9', b'"seq":8'), "bank"),
        (control.render(deployment="bank", seq=9, ts_ns=5, config="ab", sign=other.sign, roll=roll), "bank"),
        (written.partition(b"\n")[0] + b"\n", "bank"),
        (written[:-20], "bank"),
        (b"", "bank"),
        (b"\xff\n\xff\n", "bank"),
    ):
        with pytest.raises(control.ControlError):
            control.parse(raw, deployment=deployment, public=public)


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"1", b'{"v":1}', b"{", b'{"v":1,"seq":1,"ts_ns":"x","config":"","roll":[]}']
)
def test_a_signed_control_file_of_another_form_is_refused(line: bytes) -> None:
    key = Ed25519PrivateKey.generate()
    raw = line + b"\n" + base64.b64encode(key.sign(line)) + b"\n"
    with pytest.raises(control.ControlError, match="not of this form"):
        control.parse(raw, deployment="bank", public=key.public_key().public_bytes_raw())
