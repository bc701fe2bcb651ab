"""The console as a browser without JavaScript meets it: signing in, forms, pages, what pages may not do."""

import asyncio
import html
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from config.route import Route
from gateway.desk.sessions import CODE_LIFE_S
from storage.keys import Keyring
from tests.support.database import fresh_profile, opened
from tests.support.desks import EVIL, NOW_NS, Records, Running, running, write_bank

LIST = "/decisions?from=2026-03-01&to=2026-03-10"


@pytest.fixture(scope="module")
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    data = tmp_path_factory.mktemp("bank")
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(data=data, database=database, keyring=Keyring.open(data, create=True))
        asyncio.run(write_bank(records))
        yield records


@pytest.fixture
async def desk(bank: Records, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(bank, tmp_path) as up:
        yield up


@pytest.fixture
async def trying(bank: Records, tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "try").mkdir()
    async with running(bank, tmp_path / "try", developer=True) as up:
        await up.sign_in("developer", purpose="try", ticket="try", onward="/try")
        yield up


class Page(HTMLParser):
    """What a page is made of: tags with attributes, and ids, labels, headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


async def page(desk: Running, path: str, *, status: int = 200) -> Page:
    answer = await desk.client.get(path)
    text = await answer.text()
    assert answer.status == status, text
    assert answer.content_type == "text/html"
    return Page(text)


# ---- signing in and out


async def test_a_link_shows_a_button_and_only_the_button_uses_the_code_up(bank, desk):
    path = desk.desk.invite(
        subject="amy", roles=["support"], onward=f"/decisions/{bank.id('denied')}", purpose="complaint", ticket="T"
    )
    for _ in range(3):  # a mail scanner fetches the link
        assert "Sign in" in (await page(desk, path)).text
    code = path.removeprefix("/signin/")
    first = await desk.client.post("/signin", data={"code": code}, allow_redirects=False)
    assert (first.status, first.headers["Location"]) == (303, f"/decisions/{bank.id('denied')}")
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    second = await desk.client.post("/signin", data={"code": code}, allow_redirects=False)
    assert second.status == 401
    assert "used already or is too old" in await second.text()
    shown = await page(desk, f"/decisions/{bank.id('denied')}")
    assert "Say to the customer" in shown.text
    (entry,) = desk.accesses()
    assert (entry["purpose"], entry["actor"]) == ("complaint", "answerable-development|amy")


async def test_a_code_that_never_was_looks_like_one_that_is(desk):
    real = await page(desk, desk.desk.invite(subject="amy", roles=["support"]))
    made_up = await page(desk, "/signin/made-up")
    shorten = lambda text: re.sub(r'value="[^"]*"', "", text)  # noqa: E731 (one line, used twice)
    assert shorten(real.text) == shorten(made_up.text)


async def test_a_code_is_too_old_after_ten_minutes(desk):
    path = desk.desk.invite(subject="amy", roles=["support"])
    desk.clock[0] += CODE_LIFE_S * 1_000_000_000
    answer = await desk.client.post("/signin", data={"code": path.removeprefix("/signin/")}, allow_redirects=False)
    assert answer.status == 401


async def test_behind_tls_the_cookie_is_secure(desk):
    code = desk.desk.invite(subject="amy", roles=["support"]).removeprefix("/signin/")
    headers = {"X-Forwarded-Proto": "https"}
    answer = await desk.client.post("/signin", data={"code": code}, headers=headers, allow_redirects=False)
    assert "Secure" in answer.headers["Set-Cookie"]


async def test_a_token_can_be_exchanged_for_a_session_and_a_bad_one_cannot(desk):
    good = await desk.client.post(
        "/signin", data={"token": desk.token("compliance"), "next": LIST}, allow_redirects=False
    )
    assert (good.status, good.headers["Location"]) == (303, LIST)
    assert "Decisions" in (await page(desk, "/")).text
    for token in ("", "x", desk.token("compliance", aud="somebody-else"), desk.token("nobody")):
        answer = await desk.client.post("/signin", data={"token": token}, allow_redirects=False)
        assert answer.status in (401, 403)
        assert "answerable_desk" not in answer.headers.get("Set-Cookie", "")


@pytest.mark.parametrize(
    "onward",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/decisions//../\\x",
        "javascript:alert(1)",
        "/v1/x",
    ],
)
async def test_signing_in_never_leads_to_another_site(desk, onward):
    answer = await desk.client.post(
        "/signin", data={"token": desk.token("support"), "next": onward}, allow_redirects=False
    )
    assert answer.headers["Location"] == "/"


async def test_a_session_ends_at_its_time(bank, desk):
    await desk.sign_in("compliance")
    await page(desk, "/")
    desk.clock[0] = NOW_NS + 8 * 3600 * 1_000_000_000
    shown = await page(desk, LIST, status=401)
    assert 'name="token"' in shown.text
    assert html.escape(LIST) in shown.text  # and leads back to where one was


async def test_signing_out_ends_the_session_for_good(desk):
    csrf = await desk.sign_in("compliance")
    cookies = {c.key: c.value for c in desk.client.session.cookie_jar}
    answer = await desk.client.post("/signout", data={"csrf": csrf}, allow_redirects=False)
    assert answer.status == 303
    desk.client.session.cookie_jar.update_cookies(cookies)
    await page(desk, "/", status=401)


async def test_signing_in_anew_ends_the_session_before(desk):
    await desk.sign_in("compliance")
    old = {c.key: c.value for c in desk.client.session.cookie_jar}
    await desk.sign_in("support")
    desk.client.session.cookie_jar.clear()
    desk.client.session.cookie_jar.update_cookies(old)
    await page(desk, "/", status=401)


# ---- forms


@pytest.mark.parametrize("path", ["/lookup", "/purpose", "/signout"])
@pytest.mark.parametrize("csrf", [None, "", "x", "another session's"])
async def test_a_form_without_its_sessions_token_changes_nothing(bank, desk, path, csrf):
    if csrf == "another session's":
        csrf = await desk.sign_in("support")
        desk.client.session.cookie_jar.clear()
    await desk.sign_in("support")
    form = {"reference": "A-1", "kind": "case", "purpose": "complaint", "ticket": "T", "next": "/decisions"}
    sent = form if csrf is None else {**form, "csrf": csrf}
    answer = await desk.client.post(path, data=sent, allow_redirects=False)
    assert answer.status == 403
    assert desk.accesses() == []
    await page(desk, "/")  # still signed in


async def test_the_api_asks_a_session_for_its_token_too(desk):
    csrf = await desk.sign_in("support")
    said = {"reference": "A-1", "kind": "case", "purpose": "complaint", "ticket": "T"}
    assert (await desk.client.post("/v1/lookup", json=said)).status == 403
    assert (await desk.client.post("/v1/lookup", json=said, headers={"X-CSRF-Token": csrf})).status == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
async def test_nobody_is_signed_in_from_another_site(desk, headers):
    code = desk.desk.invite(subject="mallory", roles=["support"]).removeprefix("/signin/")
    answer = await desk.client.post("/signin", data={"code": code}, headers=headers, allow_redirects=False)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_a_reference_leads_to_the_case_and_never_into_an_address(bank, desk):
    csrf = await desk.sign_in("support")
    form = {"csrf": csrf, "reference": "A-1", "kind": "case", "purpose": "complaint", "ticket": "T-1"}
    answer = await desk.client.post("/lookup", data=form, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, f"/cases/{bank.pseudonym('case', 'A-1')}")
    shown = await page(desk, answer.headers["Location"])
    assert "2 decisions" in shown.text
    assert "A-1" not in shown.text


async def test_the_reference_of_a_card_leads_to_the_decision_from_either_field(bank, desk):
    csrf = await desk.sign_in("support")
    path, purpose = f"/decisions/{bank.id('denied')}", {"csrf": csrf, "purpose": "complaint", "ticket": "T-1"}
    given = bank.id("denied")[-12:]
    (field,) = [one for one in (await page(desk, "/")).all("input") if one.get("name") == "decision"]
    assert int(field["minlength"] or 0) <= len(given)
    for form in ({"decision": given}, {"reference": given, "kind": "case"}):
        answer = await desk.client.post("/lookup", data={**purpose, **form}, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, path)
    await page(desk, path)


async def test_the_purpose_is_asked_once_and_then_never_again_for_the_case(bank, desk):
    csrf = await desk.sign_in("support")
    path = f"/decisions/{bank.id('denied')}"
    asked = await page(desk, path, status=428)
    assert "Why do you look?" in asked.text
    assert desk.accesses() == []
    form = {"csrf": csrf, "next": path, "purpose": "complaint", "ticket": "T-1"}
    answer = await desk.client.post("/purpose", data=form, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, path)
    await page(desk, path)
    await page(desk, f"/cases/{bank.pseudonym('case', 'A-1')}")
    await page(desk, f"/decisions/{bank.id('corrected')}")
    await page(desk, f"/decisions/{bank.id('approved')}", status=428)


async def test_after_signing_out_the_purpose_is_asked_again(bank, desk):
    path = f"/decisions/{bank.id('denied')}"
    csrf = await desk.sign_in("support", purpose="complaint", ticket="T-1", onward=path)
    await page(desk, path)
    await desk.client.post("/signout", data={"csrf": csrf}, allow_redirects=False)
    await desk.sign_in("support")
    await page(desk, path, status=428)


async def test_a_purpose_is_asked_again_after_a_sessions_time_however_often_it_was_used(bank, desk):
    path, silent = f"/v1/decisions/{bank.id('denied')}", desk.headers("support", purpose=None, ticket=None)
    assert (await desk.client.get(path, headers=desk.headers("support"))).status == 200
    for _ in range(3):
        desk.clock[0] += 150 * 60 * 1_000_000_000
        assert (await desk.client.get(path, headers=silent)).status == 200
    desk.clock[0] += 31 * 60 * 1_000_000_000
    assert (await desk.client.get(path, headers=silent)).status == 428


async def test_a_link_from_a_crm_asks_for_the_purpose_and_refuses_a_raw_number(bank, desk):
    await desk.sign_in("support")
    case = bank.pseudonym("case", "A-1")
    shown = await page(desk, f"/open?case={case}&ticket=T-77")
    assert 'value="T-77"' in shown.text
    assert f'value="/cases/{case}"' in shown.text
    assert "names no case" in (await page(desk, "/open?ticket=T-77", status=400)).text
    refused = await page(desk, "/open?case=4711&ticket=T-77", status=400)
    assert "4711" not in refused.text
    assert desk.accesses() == []


async def test_a_list_without_a_period_begins_with_the_last_week(desk):
    await desk.sign_in("compliance", purpose="audit", onward="/decisions")
    answer = await desk.client.get("/decisions?route=mortgage", allow_redirects=False)
    assert answer.status == 303
    assert re.fullmatch(
        r"/decisions\?from=\d{4}-\d\d-\d\d&to=\d{4}-\d\d-\d\d&route=mortgage", answer.headers["Location"]
    )


async def test_a_list_is_paged_by_links(bank, desk):
    await desk.sign_in("compliance", purpose="audit", onward="/decisions")
    seen: list[str] = []
    path: str | None = f"{LIST}&limit=5"
    while path is not None:
        shown = await page(desk, path)
        seen += re.findall(r'class="mono" href="/decisions/([0-9a-f-]{36})"', shown.text)
        path = next((html.unescape(a["href"] or "") for a in shown.all("a") if a.get("rel") == "next"), None)
    assert len(seen) == len(set(seen)) == 12


# ---- every page


async def every_page(desk: Running, bank: Records) -> dict[str, Page]:
    """Each page of the console, as compliance and as support; recorded values in them are hostile."""
    shown = {"sign in": await page(desk, "/signin"), "link": await page(desk, "/signin/x")}
    evil = bank.id("evil")
    await desk.sign_in("compliance", purpose="audit", onward=f"/decisions/{evil}")
    shown["search"] = await page(desk, "/")
    shown["purpose"] = await page(desk, f"/decisions/{bank.id('approved')}", status=428)
    for name in bank.by_name:
        if name != "foreign":
            await desk.sign_in("compliance", purpose="audit", onward=f"/decisions/{bank.id(name)}")
            shown[f"full {name}"] = await page(desk, f"/decisions/{bank.id(name)}")
            shown[f"card {name}"] = await page(desk, f"/decisions/{bank.id(name)}?view=card")
    await desk.sign_in("compliance", purpose="audit", onward=f"/decisions/{evil}")
    shown["proof"] = await page(desk, f"/decisions/{evil}/proof")
    shown["case"] = await page(desk, f"/cases/{bank.pseudonym('case', 'A-9')}")
    await desk.sign_in("compliance", purpose="audit", onward="/decisions")
    shown["list"] = await page(desk, LIST)
    shown["empty list"] = await page(desk, f"{LIST}&label=none")
    shown["list with a hostile filter"] = await page(desk, f"{LIST}&reason=%22%3E%3Cimg%20src%3Dx%3E")
    shown["not found"] = await page(desk, "/nothing", status=404)
    await desk.sign_in(
        "regulator", matter={"id": EVIL[:90], "routes": ["mortgage"], "from": "2000-01-01", "to": "2100-01-01"}
    )
    shown["regulator"] = await page(desk, "/")
    return shown


@pytest.fixture
async def pages(bank: Records, desk: Running) -> dict[str, Page]:
    return await every_page(desk, bank)


async def test_recorded_values_stay_text_on_every_page(bank, pages, trying):
    pages["try"] = await page(trying, f"/try?call={bank.id('evil')}&label=label&pick=case")
    for name, shown in pages.items():
        assert "<img" not in shown.text, name
        assert shown.all("img") == [], name
        assert all(set(script) == {"src", "defer"} for script in shown.all("script")), name
        for tag, attributes in shown.tags:
            assert not [a for a in attributes if a.startswith("on") or a == "style"], (name, tag, attributes)
    assert html.escape(EVIL, quote=False).replace("'", "&#39;").replace('"', "&#34;") in pages["full evil"].text


async def test_no_page_names_another_host(pages):
    for name, shown in pages.items():
        for tag, attributes in shown.tags:
            for attribute in ("href", "src", "action"):
                address = attributes.get(attribute)
                assert address is None or re.match(r"[/#](?!/)", address), (name, tag, address)


async def test_each_page_can_be_read_by_those_who_hear_it(pages):
    for name, shown in pages.items():
        assert shown.all("html")[0]["lang"] == "en"
        assert len(shown.all("h1")) == 1, name
        assert len(shown.all("main")) == 1, name
        ids = [attributes["id"] for _, attributes in shown.tags if attributes.get("id")]
        assert len(ids) == len(set(ids)), name
        for label in shown.all("label"):
            assert label.get("for") is None or label["for"] in ids, (name, label)
        named = {label.get("for") for label in shown.all("label")}
        for field in (*shown.all("input"), *shown.all("select")):
            if field.get("type") not in ("hidden", "radio"):
                assert field.get("id") in named, (name, field)
        for _, attributes in shown.tags:
            for reference in (attributes.get("aria-labelledby") or "").split():
                assert reference in ids, (name, reference)
        levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch("h[1-6]", tag)]
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)) or "card" in name, name
        tables = shown.all("table")
        assert not tables or all(cell.get("scope") == "col" for cell in shown.all("th")), name


async def test_every_answer_carries_the_strict_policy(bank, desk):
    for path in ("/signin", "/v1/decisions", "/static/desk.css", "/nothing", "/healthz"):
        answer = await desk.client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Server" not in answer.headers
        stored = "immutable" if path.startswith("/static/") else "no-store"
        assert stored in answer.headers["Cache-Control"]


async def test_each_page_has_a_twin_that_tells_the_same(bank, desk):
    await desk.sign_in("compliance", purpose="audit", onward=f"/decisions/{bank.id('denied')}")
    shown = await page(desk, f"/decisions/{bank.id('denied')}")
    (twin,) = [link["href"] for link in shown.all("link") if link.get("rel") == "alternate"]
    found = await (await desk.client.get(twin or "")).json()
    for sentence in found["card"]["say"]:
        assert html.escape(sentence, quote=False) in html.unescape(shown.text).replace("&", "&amp;")
    for factor in found["explanation"]["factors"]:
        assert factor["label"] in shown.text
    assert len(shown.all("tr")) == 1 + len(found["explanation"]["attributions"])


async def test_support_gets_the_card_and_compliance_the_full_view_or_either(bank, desk):
    path = f"/decisions/{bank.id('denied')}"
    await desk.sign_in("support", purpose="complaint", ticket="T", onward=path)
    card = await page(desk, f"{path}?view=full")
    assert "Say to the customer" in card.text
    assert 'svg class="waterfall"' not in card.text
    assert "0.92" not in card.text
    await desk.sign_in("compliance", purpose="audit", onward=path)
    full = await page(desk, path)
    assert 'svg class="waterfall"' in full.text
    assert "\u22120.92" in full.text
    assert "Say to the customer" in (await page(desk, f"{path}?view=card")).text


async def test_a_page_of_a_pending_explanation_loads_itself_again_later_each_time_and_then_no_more(bank, desk):
    path = f"/decisions/{bank.id('waiting')}"
    await desk.sign_in("support", purpose="complaint", ticket="T", onward=path)
    following, waited = f"{path}?view=card", []
    while True:
        shown = await page(desk, following)
        refresh = [meta["content"] or "" for meta in shown.all("meta") if meta.get("http-equiv") == "refresh"]
        if not refresh:
            break
        seconds, _, following = refresh[0].partition("; url=")
        assert following.startswith(f"{path}?view=card&wait=")
        waited.append(int(seconds))
    assert waited == [3, 5, 10, 20, 40]
    assert len(desk.accesses()) == 6
    assert "look again" in shown.text
    for wait in ("-1", "x", "999999", "\u0663"):
        assert not [m for m in (await page(desk, f"{path}?wait={wait}")).all("meta") if m.get("http-equiv")]


async def test_an_administrator_may_open_proofs_and_no_decision(bank, desk):
    path = f"/decisions/{bank.id('denied')}"
    csrf = await desk.sign_in("admin")
    form = {"csrf": csrf, "decision": bank.id("denied"), "purpose": "audit"}
    answer = await desk.client.post("/lookup", data=form, allow_redirects=False)
    assert answer.headers["Location"] == f"{path}/proof"
    assert "stands in the ledger" in (await page(desk, f"{path}/proof")).text
    await page(desk, path, status=403)


# ---- try


async def test_the_try_page_exists_only_under_try(desk):
    await desk.sign_in("compliance")
    for path in ("/try", "/v1/try", "/try/newest", "/try/route.yaml"):
        assert (await desk.client.get(path)).status == 404


async def test_values_are_named_by_clicking_links_and_the_route_downloads(bank, trying):
    shown = await page(trying, "/try")
    for name, value in (("label", "denied"), ("score", "0.312"), ("case", "2500")):
        tab = next(a for a in shown.all("a") if (a.get("href") or "").startswith(f"/try?pick={name}"))
        shown = await page(trying, f"{tab['href']}&call={bank.id('denied')}")
        titles = [
            a
            for a in shown.all("a")
            if (a.get("title") or "").startswith({"label": "Label", "score": "Score", "case": "Case"}[name])
        ]
        href = next(a["href"] for a in titles if value in shown.text and a["title"].endswith(_path_of(name)))
        shown = await page(trying, href or "")
    for value, way in (("approved", "favourable"), ("denied", "adverse")):
        href = next(a["href"] for a in shown.all("a") if f"{way}={value}" in (a.get("href") or ""))
        shown = await page(trying, href or "")
    (download,) = [a["href"] for a in shown.all("a") if (a.get("href") or "").startswith("/try/route.yaml")]
    answer = await trying.client.get(download or "")
    assert "attachment" in answer.headers["Content-Disposition"]
    route = Route.model_validate(yaml.safe_load(await answer.text())["routes"][0])
    assert route.extract is not None
    assert (route.extract.label, route.extract.score, route.extract.case) == (
        "label",
        "probability",
        "application.income",
    )
    assert (route.extract.favourable, route.extract.adverse) == (("approved",), ("denied",))


def _path_of(name: str) -> str:
    return {"label": ": label", "score": ": probability", "case": ": application.income"}[name]


async def test_every_view_of_recorded_calls_leaves_an_entry_with_purpose_try(trying):
    before = len(trying.accesses())
    await page(trying, "/try")
    await trying.client.get("/try/newest")  # an id alone is nobody's data
    (entry,) = trying.accesses()[before:]
    assert (entry["action"], entry["purpose"], entry["role"], entry["rows"]) == ("try", "try", "developer", 12)


async def test_the_developer_reads_everything_without_being_asked_why(bank, trying):
    shown = await page(trying, f"/decisions/{bank.id('denied')}")
    assert "as recorded" in shown.text
    assert trying.accesses()[-1]["purpose"] == "try"


async def test_the_preview_tells_what_would_be_read_from_each_call(bank, trying):
    query = "label=label&score=probability&favourable=approved&adverse=denied"
    found = await (await trying.client.get(f"/v1/try?{query}")).json()
    by_id = {row["id"]: row for row in found["preview"]["rows"]}
    assert (by_id[bank.id("denied")]["direction"], by_id[bank.id("denied")]["score"]) == ("adverse", 0.312)
    assert by_id[bank.id("broken-off")]["error"] is not None


@pytest.mark.parametrize("query", ["label=%5B", "call=made-up", "case=" + "x" * 400])
async def test_a_try_address_that_means_nothing_is_refused(trying, query):
    assert (await trying.client.get(f"/try?{query}")).status in (400, 404)
