"""The pages in a real browser, from a real server: they work, nothing leaves the machine, everybody can read them."""

from urllib.parse import urlsplit

import pytest

from tests.sample_view import SampleView
from tests.web.browser import Browser
from tests.web.conftest import Served

PAGES = ("/", "/plan", "/bills")
TAB, ENTER = "\ue004", "\ue007"

ROWS = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]
    .map((row) => [...row.cells].map((cell) => cell.innerText.replace(/\\s+/g, " ").trim()));"""

CHART_IN_THE_PAGES_INK = """const text = document.querySelector(".chart .legendtext");
    return !text || getComputedStyle(text).fill === getComputedStyle(document.body).color;"""

CONTRASTS = """
const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
  .getContext("2d", { willReadFrequently: true });
function rgba(colour) {
  pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255);
}
function over(top, below) {
  return [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
}
function behind(element) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.unshift(rgba(getComputedStyle(e).backgroundColor));
  return layers.reduce((below, top) => over(top, below), [1, 1, 1, 1]);
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.data.trim();
  const element = walk.currentNode.parentElement;
  if (!text || !element.checkVisibility() || element.closest(".skip, script, style")) continue;
  const style = getComputedStyle(element);
  const below = behind(element);
  const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), below);
  const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
  found.push([text.slice(0, 40), Math.round((high + 0.05) / (low + 0.05) * 100) / 100]);
}
return found;
"""


@pytest.fixture(autouse=True)
def plain_view(browser: Browser) -> None:
    """Every test starts with the same view and empty logs."""
    browser.open("about:blank")
    browser.show()
    browser.devtools("Network.setCacheDisabled", cacheDisabled=False)
    browser.console()
    browser.requested()


@pytest.mark.parametrize("path", [*PAGES, "/nothing-here"])
@pytest.mark.parametrize("kind", ["full", "empty"])
def test_a_page_renders_quietly_and_asks_only_its_own_server(
    browser: Browser, kind: str, path: str, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(kind)
    browser.devtools("Network.setCacheDisabled", cacheDisabled=True)
    served.asked.clear()
    browser.open(served.url + path)
    complaints = [line for line in browser.console() if "404 (Not Found)" not in line or path in PAGES]
    assert complaints == []
    addresses = [address for address in browser.requested() if not address.startswith("data:")]
    assert {urlsplit(address).netloc for address in addresses} == {urlsplit(served.url).netloc}
    assert {urlsplit(address).path for address in addresses} == set(served.asked)
    assert browser.run("return document.querySelectorAll('main h1').length") == 1


def test_the_fan_of_every_pool_is_drawn(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/")
    drawn = browser.run(
        "return [...document.querySelectorAll('.chart')].map((chart) => "
        "[...chart.querySelectorAll('svg .scatterlayer .trace')].map((trace) => "
        "trace.getBoundingClientRect().width > 200 && trace.querySelector('path').getAttribute('d').length > 10))"
    )
    assert len(drawn) == 2
    for traces in drawn:
        assert len(traces) == 7, "two bands of two edges, the median, in use, wanted"
        assert all(traces)
    filled = browser.run("return document.querySelectorAll('.chart .js-fill[d], .chart .fills path[d]').length")
    assert filled >= 4, "the bands are filled"
    legend = browser.run("return [...document.querySelectorAll('.chart .legendtext')].map((text) => text.textContent)")
    assert set(legend) == {"wanted", "in use", "median", "25 % to 75 %", "5 % to 95 %"}


def test_the_table_beside_a_chart_says_the_same(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/")
    plotted, shown = browser.run(
        "const figure = document.querySelector('figure');"
        "figure.querySelector('details').open = true;"
        "const lines = JSON.parse(figure.querySelector('.chart').dataset.chart).lines.map((line) => line.shards);"
        "const rows = [...figure.querySelectorAll('tbody tr')]"
        "  .map((row) => [...row.querySelectorAll('td')].map((cell) => Number(cell.innerText)));"
        "return [lines, rows];"
    )
    assert len(shown) == 48
    assert [[line[step] for line in plotted] for step in range(48)] == shown


def test_the_overview_holds_the_facts(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/")
    shards = browser.run(ROWS, "shards")
    assert shards[1] == [
        "shard://shop/shop/web/1", "s-0002", "cpu.small", "bound", "gcp / europe-west1 shardwright-sandbox",
        "sw-gcp-1", "10.86.0.11", "2", "no unhealthy port 7000 is closed",
    ]  # fmt: skip
    assert [row[0] for row in shards][-1] == "–", "a ready shard has no component"
    moves = browser.run(ROWS, "moves")
    assert [row[0] for row in moves] == ["s-0002", "s-0001"], "the newest first"
    assert moves[1][1:6] == ["reclaim", "sw-aws-0 → sw-azure-2", "cleaned", "pre-copy", "84 ms"]
    assert [row[0] for row in browser.run(ROWS, "nodes")] == [node.id for node in SampleView().nodes()]
    assert browser.run(ROWS, "nodes")[0][-1] == "0.0712 USD"
    sums = browser.run("return [...document.querySelectorAll('.sum tr')].map((row) => row.innerText.split('\\t'))")
    assert [name for name, _ in sums] == [
        "Saving over an expected stay of 24 h", "− egress", "− paying both places", "− downtime",
        "− risk at the target", "− lost commitment", "= left over, passes the gate",
    ]  # fmt: skip
    sentence = browser.run("return document.querySelector('figcaption b').textContent")
    assert sentence == "82 % probability of needing 1 more cpu.small shard within the next hour"


def test_the_plan_holds_the_facts_chosen_rows_first(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/plan")
    offers = browser.run(ROWS, "offers")
    assert [row[0] for row in offers] == ["✔ yes"] * 5 + ["no"] * 5
    assert offers[0][1:4] == ["agora / agora-us", "ag-metal-4", "auction"]
    assert offers[-1][-1].startswith("dearer: ")
    assert browser.run(ROWS, "refused") == [["agora", "agora/ag-1", "a price of 0.0000001 USD"]]
    assert [row[5] for row in browser.run(ROWS, "planned")] == [
        "kept", "new, fixed price", "new, spot", "new, fixed price", "new, auction",
    ]  # fmt: skip
    short = browser.run("return document.querySelector('#pools .bad').innerText")
    assert short == "3"


def test_the_bills_hold_the_facts_and_name_the_invoice_that_is_off(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/bills")
    invoices = browser.run(ROWS, "invoices")
    assert [row[-1] for row in invoices] == ["reconciled"] * 4 + ["off"]
    assert invoices[-1][-2] == "-0.020000 USD"
    assert browser.run("return document.querySelector('.tile.bad b').innerText") == "no"
    assert ["aws", "shop/web", "0.142400 USD", "0.142400 USD", "0.284800 USD", "1"] in browser.run(ROWS, "workloads")
    href = browser.run("return document.querySelector('a[download]').getAttribute('href')")
    assert href == "/bills.csv"


def test_before_the_first_round_every_page_says_what_to_do(browser: Browser, empty: Served) -> None:
    said = {}
    for path in PAGES:
        browser.open(empty.url + path)
        said[path] = browser.run("return [...document.querySelectorAll('.empty')].map((line) => line.innerText)")
    assert len(said["/"]) == 4
    assert "shardwright run --rounds 1" in said["/"][0]
    assert said["/plan"] == ["No plan yet. Run shardwright run --rounds 1."]
    assert said["/bills"] == ["No bill yet. Run shardwright bills fetch."]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_every_text_is_readable_in_light_and_dark(browser: Browser, full: Served, path: str, scheme: str) -> None:
    """WCAG 2 AA: 4.5 to 1."""
    browser.show(scheme=scheme)
    browser.open(full.url + path)
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 3 * 128) is (scheme == "dark")
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) > 50
    assert [entry for entry in contrasts if entry[1] < 4.5] == []


def test_charts_follow_the_colour_scheme_without_a_reload(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/")
    ink = "return getComputedStyle(document.querySelector('.chart .legendtext')).fill"
    light = browser.run(ink)
    browser.show(scheme="dark")
    browser.wait_for(CHART_IN_THE_PAGES_INK)
    assert browser.run(ink) != light


@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("path", PAGES)
def test_nothing_sticks_out_of_the_page(browser: Browser, full: Served, path: str, width: int) -> None:
    browser.show(width=width)
    browser.open(full.url + path)
    assert browser.run("return document.documentElement.scrollWidth") == width
    if width == 1280:
        cut = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
        assert browser.run(cut) == 0, "on a usual screen no table needs scrolling"


def test_figures_are_right_aligned_under_their_headings(browser: Browser, full: Served) -> None:
    for path in PAGES:
        browser.open(full.url + path)
        wrong = browser.run(
            "return [...document.querySelectorAll('table:has(thead)')].flatMap((table) => "
            "  [...table.tHead.rows[0].cells].flatMap((head, i) => "
            "    [...table.tBodies[0].rows].map((row) => [head, row.cells[i]])))"
            "  .filter(([head, cell]) => /^-?[\\d,.]+( (USD|%|ms))?$/.test(cell.innerText.trim())"
            "    ? ![head, cell].every((c) => getComputedStyle(c).textAlign === 'right')"
            "    : getComputedStyle(head).textAlign !== getComputedStyle(cell).textAlign)"
            "  .map(([head, cell]) => [head.innerText, cell.innerText]).filter(([, text]) => !/^10\\.86/.test(text))"
        )
        assert wrong == [], path


def test_every_table_is_named_and_has_headings(browser: Browser, full: Served) -> None:
    for path in PAGES:
        browser.open(full.url + path)
        bare = browser.run(
            "return [...document.querySelectorAll('.scroll')].filter((frame) => !frame.ariaLabel"
            "  || !frame.querySelector('thead th[scope=col]') || !frame.querySelector('tbody th[scope=row]')"
            "  && frame.ariaLabel !== 'Offers').map((frame) => frame.outerHTML.slice(0, 200))"
        )
        assert bare == [], path
        assert browser.run("return [...document.querySelectorAll('img')].every((image) => image.hasAttribute('alt'))")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/bills")
    reached = []
    for _ in range(8):
        browser.press(TAB)
        name, outline, style = browser.run(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.ariaLabel || e.innerText, parseFloat(s.outlineWidth), s.outlineStyle]"
        )
        assert (outline >= 2, style) == (True, "solid"), name
        reached.append(name)
    assert reached == [
        "Skip to the content", "Overview", "Plan", "Bills", "Download the merged bill (FOCUS, CSV)",
        "Invoices", "Cost by provider", "Cost by provider and workload",
    ]  # fmt: skip


def test_the_pages_are_linked_and_say_which_one_is_open(browser: Browser, full: Served) -> None:
    browser.open(full.url + "/")
    for _ in range(3):
        browser.press(TAB)
    browser.press(ENTER)
    browser.wait_for("return location.pathname === '/plan' && document.readyState === 'complete'")
    assert browser.run("return document.querySelector('nav [aria-current=page]').innerText") == "Plan"


def test_a_moment_is_told_in_utc_and_locally(browser: Browser, full: Served) -> None:
    browser.devtools("Emulation.setTimezoneOverride", timezoneId="Asia/Tokyo")
    try:
        browser.open(full.url + "/")
        text, title = browser.run(
            "const moment = document.querySelector('#moves time'); return [moment.innerText, moment.title]"
        )
    finally:
        browser.devtools("Emulation.setTimezoneOverride", timezoneId="")
    assert text == "2026-11-23 12:08:12 UTC"
    assert "9:08:12" in title
    assert "GMT+9" in title


@pytest.mark.parametrize("path", PAGES)
def test_a_print_is_ink_on_white_without_navigation(browser: Browser, full: Served, path: str) -> None:
    """A4 upright, though the reader's screen is dark."""
    browser.open(full.url + path)
    browser.show(width=718, scheme="dark", medium="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return document.querySelector('nav').checkVisibility()") is False
    browser.wait_for(CHART_IN_THE_PAGES_INK)
    assert browser.run("return document.documentElement.scrollWidth") <= 718
    assert [entry for entry in browser.run(CONTRASTS) if entry[1] < 4.5] == []


def test_the_facts_are_there_without_scripts(browser: Browser, full: Served) -> None:
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(full.url + "/")
        page = browser.devtools("DOM.getDocument", depth=0)["root"]["nodeId"]
        html = browser.devtools("DOM.getOuterHTML", nodeId=page)["outerHTML"]
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert "82 % probability of needing 1 more cpu.small shard" in html
    assert "s-0005" in html
    assert "main-svg" not in html
