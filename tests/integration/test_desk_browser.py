"""The console in a real browser: what it shows, asks for, and how it can be read."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.keys import Keyring
from tests.support.browser import Tab, browsing
from tests.support.database import fresh_profile, opened
from tests.support.desks import Records, Running, past, running, write_bank

pytestmark = pytest.mark.needs("chromium")

# Every visible text against what lies behind it: WCAG 2.2, 1.4.3 (4.5:1; large text 3:1).
CONTRAST = """
(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return {r: m[0], g: m[1], b: m[2], a: m[3] ?? 1}; };
  const lum = c => { const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(c.r) + 0.7152 * f(c.g) + 0.0722 * f(c.b); };
  const ground = e => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; }
    return matchMedia('(prefers-color-scheme: dark)').matches ? {r: 0, g: 0, b: 0} : {r: 255, g: 255, b: 255}; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, s = getComputedStyle(e), box = e.getBoundingClientRect();
    const unseen = !box.width || !box.height || e.closest('.visually-hidden, .skip, title, desc, script');
    if (unseen || !walker.currentNode.data.trim()) continue;
    const svg = e.closest('svg') && e.tagName !== 'svg';
    const [a, b] = [lum(parse(svg ? s.fill : s.color)), lum(ground(e))].sort((x, y) => y - x);
    const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && s.fontWeight >= 700);
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) poor.push(walker.currentNode.data.trim().slice(0, 40));
  }
  return poor;
})()
"""
# Targets of at least 24 by 24 pixels, links inside a line of text excepted: WCAG 2.2, 2.5.8.
SMALL_TARGETS = """
[...document.querySelectorAll('button, input:not([type=hidden]), select, summary, nav a, a.badge, a.button')]
  .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
  .filter(([_, b]) => b.width && (b.height < 24 || b.width < 24) && !(b.height < 24 && b.width < 20))
  .map(([html, b]) => `${html} ${b.width}x${b.height}`)
"""


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
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browsing(tmp_path / "profile") as up:
        yield up


def address(desk: Running, path: str) -> str:
    return f"http://127.0.0.1:{desk.client.port}{path}"


async def enter(tab: Tab, desk: Running, *roles: str, **invitation: str) -> None:
    """Sign in as a person does: open the link, press the button."""
    await tab.go(address(desk, desk.desk.invite(subject="amy", roles=list(roles), **invitation)))
    await tab.click("main button")


async def test_a_link_and_one_button_lead_to_the_call_card_and_nowhere_else(bank, desk, tab):
    path = f"/decisions/{bank.id('denied')}"
    await enter(tab, desk, "support", purpose="complaint", ticket="T-1", onward=path)
    assert await tab.run("location.pathname") == path
    assert await tab.run("document.querySelector('h1').textContent") == "denied"
    assert await tab.run("[...document.querySelectorAll('.say li')].length") == 4
    assert tab.problems == []  # no breach of the content security policy, no missing file
    assert {address.split("/")[2] for address in tab.asked if address.startswith("http")} == {
        f"127.0.0.1:{desk.client.port}"
    }
    assert await tab.run("getComputedStyle(document.body).fontFamily.includes('sans-serif')")  # the sheet was taken


async def test_both_views_are_readable_light_and_dark_wide_and_narrow(bank, desk, tab):
    path = f"/decisions/{bank.id('denied')}"
    listed = "/decisions?from=2026-03-01&to=2026-03-10"
    for name in (path, f"{path}?view=card", f"{path}/proof", "/", listed, "/nothing"):
        if name in (path, listed):
            await enter(tab, desk, "compliance", purpose="audit", onward=name)  # a purpose is stated per session
        for theme in ("light", "dark"):
            await tab.look(width=1280, theme=theme)
            await tab.go(address(desk, name))
            await tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert await tab.run(CONTRAST) == [], (name, theme)
            assert await tab.run(SMALL_TARGETS) == [], name
        await tab.look(width=320)  # WCAG 2.2, 1.4.10: no scrolling in two directions
        assert await tab.run("document.documentElement.scrollWidth") <= 320, name


async def test_a_hold_is_placed_in_the_console_and_its_page_is_readable(bank, desk, tab):
    await enter(tab, desk, "compliance", purpose="legal", onward="/holds")
    await tab.run("document.querySelector('#held-reference').value = 'A-1'")
    await tab.run("document.querySelector('#held-basis').value = 'litigation'")
    await tab.run("document.querySelector('#held-reason').value = 'The customer has sued.'")
    await tab.click("form[action='/holds'] button")
    assert await tab.run("location.pathname") == "/holds"
    assert "in force" in await tab.run("document.querySelector('table').textContent")
    await tab.run("document.querySelector('table input[name=reason]').value = 'Settled.'")
    await tab.click("table form button")
    assert await tab.run("document.querySelector('.request h3').textContent.startsWith('Release a hold')")
    for theme in ("light", "dark"):
        await tab.look(width=1280, theme=theme)
        assert await tab.run(CONTRAST) == [], theme
        assert await tab.run(SMALL_TARGETS) == []
    await tab.look(width=320)
    assert await tab.run("document.documentElement.scrollWidth") <= 320
    assert tab.problems == []


async def test_hostile_values_run_nothing_in_a_real_browser(bank, desk, tab):
    path = f"/decisions/{bank.id('evil')}"
    await enter(tab, desk, "compliance", purpose="audit", onward=path)
    assert await tab.run("document.querySelectorAll('main img, main script').length") == 0
    assert tab.problems == []
    await tab.go(address(desk, f"{path}?view=card"))
    assert tab.problems == []


async def test_the_keyboard_reaches_the_content_first(bank, desk, tab):
    await enter(tab, desk, "compliance", purpose="audit", onward=f"/decisions/{bank.id('denied')}")
    await tab.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert await tab.run("document.activeElement.className") == "skip"
    assert await tab.run("document.activeElement.getBoundingClientRect().top >= 0")
    await tab.call(
        "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
    )
    assert await tab.run("document.activeElement.id") == "main"


async def test_the_try_page_works_without_javascript_and_with_it_shows_new_calls_by_itself(
    tmp_path: Path, request: pytest.FixtureRequest, tab: Tab
):
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "data", database=database, keyring=Keyring.open(tmp_path / "data", create=True)
        )
        async with past(records) as writing:
            await writing.decide("first", case="A-1")
        async with running(records, tmp_path, developer=True) as desk:
            await enter(tab, desk, "developer", purpose="try", onward="/try")
            assert await tab.run("document.querySelectorAll('tbody tr').length") == 1
            async with past(records) as writing:
                await writing.decide("second", case="A-2")
            async with asyncio.timeout(20):
                while await tab.run("document.querySelectorAll('tbody tr').length") != 2:
                    await asyncio.sleep(0.2)
            await tab.call("Emulation.setScriptExecutionDisabled", value=True)
            await tab.go(address(desk, "/try"))
            async with asyncio.timeout(20):  # the load that was awaited may have been that of the page before
                while not await tab.run("document.querySelector('.tree a') !== null"):
                    await asyncio.sleep(0.2)
            await tab.click(".tree a")
            assert "label=label" in await tab.run("location.search")
            assert await tab.run("document.querySelector('.is').textContent") == "Label"
            assert tab.problems == []
