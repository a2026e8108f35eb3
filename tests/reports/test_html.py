"""The HTML report: what must be known is in it without JavaScript, nothing leaks into it, and nothing in it runs."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser

import pytest

from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

HOSTILE = """<script>document.title="pwned"</script><img src=x onerror="document.title='pwned'">'"&lt;"""
GUIDE = """
# Database issues

Usual time to resolve: 10–30 min

## The pool is exhausted

Symptoms: `db.headroom`

All slots are <taken>.

### Look

1. See who holds them:

   ```sh
   {{ psql("SELECT pid FROM pg_stat_activity WHERE state <> 'active'") }}
   ```

### Mend

1. Restart the backend:

   Caution: requests under way are lost.

   ```sh
   {{ restart("backend") }}
   ```

### Escalate

To the administrator when it happens twice.
"""
SOURCE = f"""
    HOSTILE = {HOSTILE!r}
    @probe(guard="db.login")
    def session():
        raise Failed("sorry, too many clients already")
    @symptom("db.headroom", severity=Severity.CRITICAL)
    def test_headroom(finding, now):
        \"\"\"There is room.\"\"\"
        finding.measure("client connections", 94, of=97, limit=Limit(warn=80, fail=95, source="the runbook"))
        finding.note("61 idle in transaction", HOSTILE)
        finding.began(now - timedelta(minutes=17))
    @symptom("db.login", severity=Severity.CRITICAL, caused_by=["db.headroom"])
    def test_login(session):
        \"\"\"One can log in.\"\"\"
    @symptom("db.query", severity=Severity.MAJOR)
    def test_query(session):
        \"\"\"It answers.\"\"\"
    @symptom("db.tables", severity=Severity.MINOR)
    def test_tables(finding):
        \"\"\"Tables are well.\"\"\"
        finding[HOSTILE].warn("bloated " + HOSTILE)
        finding["visits"].says("well")
    @symptom("db.replication", severity=Severity.MINOR)
    def test_replication(finding):
        \"\"\"Replicas follow.\"\"\"
        finding.not_applicable("no replica " + HOSTILE)
    @symptom("db.fine", severity=Severity.MINOR)
    def test_fine(finding):
        \"\"\"It is fine.\"\"\"
        finding.measure("round trip", 0.004, unit="s", limit=Limit(warn=0.1, fail=1))
"""


BLOCKS = {
    "article",
    "dd",
    "div",
    "dt",
    "h1",
    "h2",
    "h3",
    "h4",
    "label",
    "li",
    "p",
    "pre",
    "span",
    "summary",
    "td",
    "th",
}


class Reader(HTMLParser):
    """What a mail client sees that runs no script: the text outside of scripts, the tags, and the rows of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.rows: list[list[str]] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        if tag in BLOCKS:
            self.handle_data(" ")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        self.attributes += [name for name, _ in attrs]
        self.silent += tag in ("script", "style", "template")

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        self.silent -= tag in ("script", "style", "template")
        if tag in BLOCKS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        if not self.silent:
            self.words.append(data)
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """All that is shown, with single spaces."""
        return " ".join("".join(self.words).split())


def read(page: str) -> Reader:
    """A page as a client without JavaScript reads it."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def rows(page: str) -> list[list[str]]:
    """The rows of the tables of checks, as the texts of their cells."""
    tables = re.findall(r'<table class="results">.*?</table>', page, re.DOTALL)
    found = [row for table in tables for row in read(table).rows if row and row[0].strip() != "Outcome"]
    return [[" ".join(cell.split()) for cell in row] for row in found]


@pytest.fixture
def failing(pretend: Pretend) -> Pretend:
    """A pretended suite that finds something of every kind, much of it hostile."""
    pretend.guide(GUIDE)
    pretend.checks(SOURCE)
    return pretend


def test_the_essential_is_there_without_javascript(failing: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which target, when, state, root cause with its measured value against limits, what to do, how long it usually
    takes, whom to call, what follows and what is blocked: all of it above the table, in the HTML itself.
    """
    monkeypatch.setenv("TZ", "Europe/Berlin")
    run = failing.run()
    text = read(run.page).text
    before = text[: text.index("All checks")]
    for said in (
        "prod is failing",
        "UTC = ",
        "CET (UTC+01:00)",
        "Escalate now: call the manager (down for 17 min, more than 15 min)",
        "Usual time to resolve 10–30 min",
        "Root cause · critical · db.headroom · for 17 min, since",
        "94 of 97 client connections = 97 % (fail at 95 %)",
        "client connections 97 % warn at 80 %, fail at 95 % (the runbook)",
        "61 idle in transaction",
        "Look this only reads See who holds them:",
        """docker exec allodoc_postgres_prod psql -X -U allodoc_prod -d allodoc_prod -c "SELECT pid FROM""",
        "Mend this changes things Restart the backend:",
        "Caution: requests under way are lost.",
        "docker restart allodoc_backend_prod",
        "To the administrator when it happens twice.",
        "All slots are <taken>.",
        "1 more fails because of it db.login sorry, too many clients already",
        "1 blocked by db.login db.query",
        "postgres breaks: db.headroom",
        "1 warning",
    ):
        assert said in before, said
    assert "Not checked, and why no replica" in text
    for name in ("db.headroom", "db.login", "db.query", "db.replication", "db.fine", "db.tables[visits]"):
        assert name in text, name


def test_the_table_has_our_columns(failing: Pretend) -> None:
    """The table shows symptom, severity, outcome, message and measurement of each finding, the gravest first, below
    their chapter and filters that count them.
    """
    page = failing.run().page
    header = re.findall(r'<th scope="col">([^<]*)</th>', page.partition('class="results"')[2])
    assert header[:6] == ["Outcome", "Symptom", "What was seen", "Measurement", "Severity", "Took"]
    shown = {row[1]: row for row in rows(page)}
    assert shown["db.headroom"][0] == "■ fail"
    assert shown["db.headroom"][2].startswith(
        "94 of 97 client connections = 97 % (fail at 95 %) There is room. 61 idle"
    )
    assert shown["db.headroom"][3:5] == ["97 %", "critical"]
    assert shown["db.query"][0] == "◆ blocked"
    assert shown["db.replication"][0] == "– not applicable"
    assert shown["db.fine"][0] == "● pass"
    assert shown["db.fine"][3] == "4 ms"
    assert shown["db.tables[visits]"][0] == "● pass"
    assert [row[0] for row in rows(page)] == ["■ fail"] * 2 + ["◆ blocked", "▲ warn"] + ["● pass"] * 2 + [
        "– not applicable"
    ]
    filters = dict(re.findall(r'class="show-([\w-]+)">.*?<b>(\d+)</b>', page))
    assert filters == {"fail": "2", "blocked": "1", "warn": "1", "pass": "2", "not-applicable": "1"}
    assert "Database issues ■ 2 fail ◆ 1 blocked ▲ 1 warn ● 2 pass – 1 not applicable" in read(page).text


def test_what_was_observed_is_text_and_nothing_else(failing: Pretend) -> None:
    """Names of tables, messages, notes and reasons that hold markup are shown as they are."""
    page = read(failing.run().page)
    assert page.text.count(" ".join(HOSTILE.replace("&lt;", "<").split())) == 0  # it is shown as it was written …
    assert html.unescape(html.escape(HOSTILE)) in "".join(page.words)
    assert page.tags.count("script") == 1  # … and is no markup: the only script is the page's own
    assert "img" not in page.tags
    assert "onerror" not in page.attributes


def test_only_what_we_brought_may_run(failing: Pretend) -> None:
    """The policy of the page names its one script and its one style by their contents, and forbids all else."""
    page = failing.run().page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    directives = html.unescape(policy[1])
    assert directives.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in directives
    assert "unsafe" not in directives
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_whoever_ran_it_is_not_in_it(failing: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-html's table of the environment stays empty: no variable of a CI system, no list of packages."""
    for name in ("BUILD_URL", "JENKINS_URL", "JOB_NAME", "CI_JOB_URL", "GITHUB_ACTIONS", "CI"):
        monkeypatch.setenv(name, "canary-of-the-environment")
    monkeypatch.setenv("JAVA_HOME", "/canary-of-the-environment")
    page = failing.run("--metadata", "owner", "canary-of-the-environment").page
    assert "canary-of-the-environment" not in page


def test_the_file_is_written_whole_beside_latest(failing: Pretend) -> None:
    """By time and target; ``latest.html`` leads to it; nothing unfinished stays behind."""
    run = failing.run("-o", "generate_report_on_test=true")  # which would be before anything is known
    files = sorted(path.name for path in run.folder.iterdir() if path.suffix in (".html", ".json"))
    assert len(files) == 4
    assert not list(run.folder.glob(".*"))
    assert re.fullmatch(r"\d{8}T\d{6}Z-prod\.html", files[0])
    assert files[2:] == ["latest.html", "latest.json"]
    assert (run.folder / "latest.html").resolve().name == files[0]
    assert f"report: made/{files[0]}" in run.lines
    assert len(run.page) < 200_000


def test_a_folder_that_cannot_be_written_is_said(failing: Pretend) -> None:
    """There is no report then, and the verdict and the exit status are what they are anyway."""
    failing.checks("")
    failing.checks(
        """
    @symptom("db.fine", severity=Severity.MAJOR)
    def test_fine(finding):
        \"\"\"It is fine.\"\"\"
    """
    )
    failing.folder.joinpath("made").touch()
    run = failing.run()
    assert run.exit_status == 0
    assert any(line.startswith("no HTML report: ") and "made" in line for line in run.lines)
    assert any(line.startswith("no snapshot: ") for line in run.lines)
    assert run.lines[-1].startswith("prod is healthy")


def test_a_report_goes_where_the_user_wants_it(failing: Pretend) -> None:
    """--html names the file, --no-reports writes none, both together write that one."""
    failing.run("--no-reports")
    assert not (failing.folder / "made").exists()
    failing.run("--no-reports", "--html=mine/report.html")
    assert not (failing.folder / "made").exists()
    assert [path.name for path in (failing.folder / "mine").iterdir()] == ["report.html"]
    assert "prod is failing" in read((failing.folder / "mine" / "report.html").read_text("utf-8")).text


def test_several_targets_are_sections_of_one_file(failing: Pretend) -> None:
    """Each with its own verdict; the table says which row is whose. The same from several workers."""
    for name in ("prod", "staging"):
        failing.target(name)
    run = failing.run("--target", "prod", "--target", "staging", "-n2")
    (page,) = run.folder.glob("2*.html")
    assert page.name.endswith("-prod-staging.html")
    text = read(run.page).text
    assert text.startswith("prod is failing · staging is failing")
    assert text.count("Root cause · critical · db.headroom") == 2
    assert [row[1] for row in rows(run.page)].count("db.headroom") == 2


def test_a_defect_is_told_apart(pretend: Pretend) -> None:
    """What broke down in the suite is no finding: it has its own section and its own filter, with the traceback."""
    pretend.checks(
        """
    @symptom("db.broken", severity=Severity.MINOR)
    def test_broken(finding):
        \"\"\"It is checked.\"\"\"
        {}["<b>no such key</b>"]
    """
    )
    run = pretend.run()
    text = read(run.page).text
    assert "prod is unknown" in text
    assert "The suite itself broke down in 1 place" in text
    assert "KeyError: '<b>no such key</b>'" in text
    row, traceback = rows(run.page)
    assert row[:3] == ["✕ broken down", "db.broken", "the suite itself is at fault"]
    assert "KeyError: '<b>no such key</b>'" in traceback[0]


def test_without_pytest_html_there_is_no_report(failing: Pretend) -> None:
    """Who turns the plugin off gets the verdict and the snapshot."""
    run = failing.run("-p", "no:html")
    assert run.exit_status == 1
    assert run.page == ""
    assert run.snapshot["verdict"]["root_causes"] == ["db.headroom"]
