"""The plugin: checks become findings, findings a verdict and an exit status, as any pytest user expects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.beds.pretend import SECRET, Pretend

pytest_plugins = ["pytester"]

PASS = """
    @symptom("db.fine", severity=Severity.MAJOR)
    def test_fine(finding):
        \"\"\"It is fine.\"\"\"
        finding.says("seen to be fine")
"""
WARN = """
    @symptom("db.slow", severity=Severity.MINOR)
    def test_slow(finding):
        \"\"\"It is quick.\"\"\"
        finding.measure("round trip", 0.2, unit="s", limit=Limit(warn=0.1, fail=1))
"""
FAIL = """
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=97, limit=Limit(warn=80, fail=95))
"""
PORT = """
    @probe(guard="db.port")
    def port():
        raise Failed("refused at 127.0.0.1:5433", details=("seen by connect()",))
    @probe(guard="db.login")
    def login(port): ...
    @symptom("db.port", severity=Severity.CRITICAL, smoke=True, caused_by=["db.full"])
    def test_port(port):
        \"\"\"The port opens.\"\"\"
    @symptom("db.login", severity=Severity.CRITICAL)
    def test_login(login):
        \"\"\"One can log in.\"\"\"
"""
DEFECT = f"""
    @symptom("db.broken", severity=Severity.MINOR)
    def test_broken(finding):
        \"\"\"It is checked.\"\"\"
        password = "{SECRET}"
        raise KeyError("oops " + password)
"""


# -- exit statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "arguments", "status", "state"),
    [
        (PASS, (), 0, "healthy"),
        (PASS + WARN, (), 0, "warning"),
        (PASS + WARN, ("--strict",), 1, "warning"),
        (PASS + FAIL, (), 1, "failing"),
        (PORT, ("-k", "test_login"), 1, "failing"),
        (PASS + DEFECT, (), 1, "unknown"),
    ],
    ids=["healthy", "warning", "strict", "failing", "blocked", "defect"],
)
def test_exit_status_and_state(
    pretend: Pretend, source: str, arguments: tuple[str, ...], status: int, state: str
) -> None:
    """0 while nothing failed, 1 as soon as something failed, is blocked or broke down; --strict refuses warnings."""
    pretend.checks(source)
    run = pretend.run(*arguments)
    assert (run.exit_status, run.snapshot["verdict"]["state"]) == (status, state), run.output


def test_strict_says_why_it_fails(pretend: Pretend) -> None:
    """The finding stays the warning that it is; the last line tells what --strict makes of it."""
    pretend.checks(WARN)
    run = pretend.run("--strict")
    assert run.outcomes == {"db.slow": "warn"}
    assert run.lines[-1].startswith("prod has warnings, which --strict makes failures")


def test_nothing_selected_is_exit_status_5(pretend: Pretend) -> None:
    """As with any pytest run, and no report is written."""
    pretend.checks(PASS)
    run = pretend.run("-k", "nothing_like_it")
    assert (run.exit_status, run.snapshots, run.page) == (5, {}, "")


@pytest.mark.parametrize(
    ("target", "said"),
    [("prd", "no target 'prd'"), ("bad", "bad.toml:2: unknown key 'kimd' (runtime.kimd); did you mean 'kind'?")],
)
def test_a_target_that_cannot_be_used_is_exit_status_4(pretend: Pretend, target: str, said: str) -> None:
    """One sentence with the nearest valid name, no traceback, and nothing was checked."""
    pretend.checks(PASS)
    pretend.target("prod")
    pretend.target("bad", "[runtime]\nkimd = 'docker'\n")
    run = pretend.run("--target", target)
    assert run.exit_status == 4
    assert said in run.errors
    assert "did you mean" in run.errors
    assert "Traceback" not in run.errors + run.output
    assert not run.snapshots


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupt_reports_what_there_is(pretend: Pretend, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM: exit status 2, the findings so far are told, and what had no turn is not called healthy."""
    pretend.checks(
        PASS
        + """
    @symptom("db.endless", severity=Severity.MAJOR)
    def test_endless(finding):
        \"\"\"It ends.\"\"\"
        Path("begun").touch()
        time.sleep(60)
    @symptom("db.later", severity=Severity.MAJOR)
    def test_later(finding):
        \"\"\"It comes later.\"\"\"
    """
    )
    # A shell that starts its jobs in the background has them ignore the signal.
    with subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "pytest", "--reports=made"],
        cwd=pretend.folder,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        ends = time.monotonic() + 30
        while not (pretend.folder / "begun").exists() and time.monotonic() < ends:
            time.sleep(0.02)
        process.send_signal(number)
        try:
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 2, output
    last = output.rstrip().splitlines()[-1]
    assert last.startswith("prod is unknown   (1 passed, 2 not run;"), output
    assert "the run ended early: interrupted" in output
    page = (pretend.folder / "made" / "latest.html").read_text("utf-8")
    assert "The run ended early" in page
    assert "db.later" in page


def test_a_run_that_stops_early_says_what_it_left_out(pretend: Pretend) -> None:
    """-x ends the run at the first failure, and the verdict counts the rest as not run."""
    pretend.checks(FAIL + PASS + WARN)
    run = pretend.run("-x")
    assert run.exit_status == 1
    assert run.outcomes == {"db.full": "fail"}
    assert "1 failing, 2 not run" in run.lines[-1]


# -- outcomes -----------------------------------------------------------------------------------------


def test_every_way_for_a_check_to_end(pretend: Pretend) -> None:
    """Measurements, words, assertions, reasons and parts become the findings that they mean."""
    pretend.checks(
        PASS
        + WARN
        + FAIL
        + """
    @symptom("db.asserts", severity=Severity.MAJOR)
    def test_asserts():
        \"\"\"One is two.\"\"\"
        assert 1 == 2, "one is not two"
    @symptom("db.absent", severity=Severity.MAJOR)
    def test_absent(finding):
        \"\"\"Replicas follow.\"\"\"
        finding.not_applicable("no replica")
    @symptom("db.skipped", severity=Severity.MAJOR)
    def test_skipped():
        \"\"\"It is not skipped.\"\"\"
        pytest.skip("not today")
    @symptom("db.tables", severity=Severity.MAJOR)
    def test_tables(finding):
        \"\"\"Tables are well.\"\"\"
        finding["patients"].fail("bloated", variant="bloat")
        finding["visits"].says("well")
    """
    )
    run = pretend.run()
    assert run.outcomes == {
        "db.fine": "pass",
        "db.slow": "warn",
        "db.full": "fail",
        "db.asserts": "fail",
        "db.absent": "not-applicable",
        "db.skipped": "not-applicable",
        "db.tables[patients]": "fail",
        "db.tables[visits]": "pass",
    }
    full = run.finding("db.full")
    assert full["message"] == "97 of 97 connections = 100 %   (fail at 95 %)"
    assert full["measurements"] == [
        {
            "name": "connections",
            "value": 100.0,
            "unit": "%",
            "warn": 80.0,
            "fail": 95.0,
            "source": "default of this suite",
            "worse": "above",
        }
    ]
    assert run.finding("db.asserts")["message"] == "one is not two"
    assert run.finding("db.absent")["message"] == "no replica"
    assert run.snapshot["verdict"]["root_causes"] == ["db.full", "db.asserts", "db.tables[patients]"]


def test_a_failed_probe_fails_its_guard_and_blocks_the_rest(pretend: Pretend) -> None:
    """One check fails with the probe's message and proof; what depends on the probe is blocked by it, by name."""
    pretend.checks(PORT)
    run = pretend.run("--no-history")
    assert run.outcomes == {"db.port": "fail", "db.login": "blocked"}
    assert run.finding("db.port")["details"] == ["seen by connect()"]
    assert run.finding("db.login")["blocked_by"] == "db.port"
    assert run.snapshot["verdict"] == {
        "state": "failing",
        "root_causes": ["db.port"],
        "consequences": ["db.login"],
        "escalation": "none",
        "escalation_reason": "yours to mend now; call the manager if it can't be restored within 15 min",
        "outage_since": None,
    }


def test_a_guard_that_was_not_selected_is_still_the_root_cause(pretend: Pretend) -> None:
    """Whoever runs one chapter learns what blocks it, with the severity, title and proof of the check that guards."""
    pretend.checks(PORT)
    run = pretend.run("-k", "db.login")
    assert run.outcomes == {"db.port": "fail", "db.login": "blocked"}
    guard = run.finding("db.port")
    assert (guard["severity"], guard["title"], guard["nodeid"]) == ("critical", "The port opens.", "")
    assert (guard["message"], guard["details"]) == ("refused at 127.0.0.1:5433", ["seen by connect()"])
    assert run.snapshot["verdict"]["root_causes"] == ["db.port"]


def test_a_guard_fails_even_if_its_check_looked_elsewhere(pretend: Pretend) -> None:
    """What a check guards was not to be had, so it fails, whatever it found itself: blocked is never by what passes."""
    pretend.checks(
        """
    @probe(guard="db.server")
    def version():
        return 15
    @probe(guard="db.server", deadline=0.1)
    def log():
        time.sleep(60)
    @symptom("db.server", severity=Severity.CRITICAL)
    def test_server(version, finding):
        \"\"\"The server answers.\"\"\"
        finding.measure("version", version)
    @symptom("db.errors", severity=Severity.MAJOR)
    def test_errors(log):
        \"\"\"There are no errors.\"\"\"
    """
    )
    run = pretend.run()
    assert run.outcomes == {"db.server": "fail", "db.errors": "blocked"}
    server = run.finding("db.server")
    assert (server["message"], server["details"]) == ("no answer within 100 ms", ["asked by the probe log"])
    assert [measurement["name"] for measurement in server["measurements"]] == ["version"]
    assert run.snapshot["verdict"]["root_causes"] == ["db.server"]


def test_a_defect_is_an_error_of_the_suite(pretend: Pretend) -> None:
    """It is shown with its traceback, as an error, and is no finding; secrets are not in the traceback."""
    pretend.checks(PASS + DEFECT)
    run = pretend.run("-v")
    assert run.outcomes == {"db.fine": "pass"}
    (defect,) = run.snapshot["defects"]
    assert (defect["symptom"], defect["target"]) == ("db.broken", "prod")
    assert "== ERRORS ==" in run.output
    assert "raise KeyError" in run.output
    assert "1 error" in run.output
    assert "test_broken DEFECT" in run.output
    assert run.lines[-1].startswith("prod is unknown   (1 passed, 1 broken down (a defect of the suite)")
    assert SECRET not in run.output + run.page + str(run.snapshots)


def test_an_assertion_without_words_is_a_defect(pretend: Pretend) -> None:
    """A check that can't say what it found is not finished."""
    pretend.checks(
        """
    @symptom("db.mute", severity=Severity.MAJOR)
    def test_mute():
        \"\"\"One is two.\"\"\"
        assert 1 == 2
    """
    )
    run = pretend.run()
    assert run.exit_status == 1
    assert run.snapshot["findings"] == []
    assert len(run.snapshot["defects"]) == 1


def test_a_file_that_cannot_be_read_is_a_defect(pretend: Pretend) -> None:
    """What it was to check is not checked; the run is interrupted, or goes on where that was asked for."""
    pretend.checks(PASS)
    pretend.checks("import no_such_module", file="checks/db/test_unreadable.py")
    assert pretend.run().exit_status == 2
    run = pretend.run("--continue-on-collection-errors")
    assert run.exit_status == 1
    assert run.snapshot["verdict"]["state"] == "unknown"
    assert run.outcomes == {"db.fine": "pass"}


def test_a_guide_that_cannot_be_used_costs_the_remedies_only(pretend: Pretend) -> None:
    """The verdict is told, and the guide is named as a defect of the suite."""
    pretend.checks(FAIL)
    pretend.guide("# Database issues\n\n## Full\n\nSymptoms: `db.full`\n\nIt is full.\n")
    run = pretend.run()
    assert run.snapshot["verdict"]["root_causes"] == ["db.full"]
    assert "has no look" in run.snapshot["defects"][0]["text"]
    pretend.guide(
        """
        # Database issues

        ## Full

        Symptoms: `db.full`

        It is full.

        ### Look

        1. See:

           ```sh
           {{ no_such_word }}
           ```
        """
    )
    run = pretend.run()
    assert run.snapshot["verdict"]["root_causes"] == ["db.full"]
    assert "no_such_word" in run.snapshot["defects"][0]["text"]


# -- selecting ----------------------------------------------------------------------------------------

CHOICE = (
    PASS
    + FAIL
    + """
    @symptom("db.parts", severity=Severity.MINOR, smoke=True, only=("redis", "postgres"))
    def test_parts(service, finding):
        \"\"\"Its parts are well.\"\"\"
    """
)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("-m", "smoke"), {"db.parts[postgres]", "db.parts[redis]"}),
        (("-m", "critical"), {"db.full"}),
        (("-m", "db and not critical and not minor"), {"db.fine"}),
        (("-k", "redis"), {"db.parts[redis]"}),
        (("checks/db/test_pretended.py::test_fine",), {"db.fine"}),
        (("checks/db/test_pretended.py::test_parts[redis]",), {"db.parts[redis]"}),
        (("checks/db",), {"db.fine", "db.full", "db.parts[postgres]", "db.parts[redis]"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_selecting_checks(pretend: Pretend, arguments: tuple[str, ...], names: set[str]) -> None:
    """-m by severity, chapter and smoke; -k by id and parameter; paths and node ids as ever."""
    pretend.checks(CHOICE)
    assert set(pretend.run(*arguments).outcomes) == names


def test_a_check_runs_over_an_axis_of_its_evidence(pretend: Pretend) -> None:
    """A check that asks for a probe with an axis runs once for each value; causes take the value."""
    pretend.checks(
        """
    @probe(guard="service.running[{service}]")
    def state(service):
        return "paused" if service == "redis" else "running"
    @symptom("service.running", severity=Severity.CRITICAL)
    def test_running(state, service):
        \"\"\"It runs.\"\"\"
        assert state == "running", f"{service} is {state}"
    @symptom("service.answers", severity=Severity.CRITICAL, caused_by=["service.running[{service}]"])
    def test_answers(state, finding):
        \"\"\"It answers.\"\"\"
        assert state == "running", "no answer"
    """,
        file="checks/service/test_pretended.py",
    )
    run = pretend.run()
    assert [name for name, outcome in run.outcomes.items() if outcome == "fail"] == [
        "service.running[redis]",
        "service.answers[redis]",
    ]
    assert run.snapshot["verdict"]["root_causes"] == ["service.running[redis]"]


def test_an_axis_without_values_is_not_applicable(pretend: Pretend) -> None:
    """A check that has nothing to run over says so instead of being left out."""
    pretend.checks(
        """
    @axis("port")
    def ports(target):
        return ()
    @probe(guard="db.ports[{port}]")
    def listener(port): ...
    @symptom("db.ports", severity=Severity.MAJOR)
    def test_ports(listener, finding):
        \"\"\"Each port is ours.\"\"\"
    """
    )
    run = pretend.run()
    assert run.exit_status == 0
    assert run.outcomes == {"db.ports": "not-applicable"}
    assert run.finding("db.ports")["message"] == "this target has no port"


# -- several targets, several processes -----------------------------------------------------------------

COUNTED = """
    @probe(guard="db.port")
    def port(target):
        with open("observed", "a") as file:
            file.write(f"{target.name} {os.getpid()}\\n")
        if target.name == "staging":
            raise Failed("refused")
        return 5433
    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(port, finding):
        \"\"\"The port opens.\"\"\"
    @symptom("db.parts", severity=Severity.MINOR)
    def test_parts(port, service, finding):
        \"\"\"Parts are well.\"\"\"
    @symptom("db.moment", severity=Severity.MINOR)
    def test_moment(now, finding):
        \"\"\"It is now.\"\"\"
        finding.note(now.isoformat())
"""


def observed(pretend: Pretend) -> list[str]:
    """Which targets were observed, one entry for each time that the probe ran."""
    return [line.split()[0] for line in (pretend.folder / "observed").read_text().splitlines()]


def test_several_targets_in_one_run(pretend: Pretend) -> None:
    """Each has its own findings, verdict and snapshot; node ids begin with the target's name."""
    pretend.checks(COUNTED)
    pretend.target("prod")
    pretend.target("staging")
    run = pretend.run("--target", "prod", "--target", "staging", "-v")
    assert run.exit_status == 1
    assert {name: snapshot["verdict"]["state"] for name, snapshot in run.snapshots.items()} == {
        "prod": "healthy",
        "staging": "failing",
    }
    assert "test_parts[staging-redis] BLOCKED" in run.output
    assert sorted(observed(pretend)) == ["prod", "staging"]


@pytest.mark.parametrize("targets", [("prod",), ("prod", "staging")], ids=len)
def test_workers_observe_each_target_once(pretend: Pretend, targets: tuple[str, ...]) -> None:
    """Under -n2 all checks of a target go to one worker; the verdict and the snapshot are those of one process."""
    pretend.checks(COUNTED)
    for name in targets:
        pretend.target(name)
    chosen = [word for name in targets for word in ("--target", name)]
    alone = pretend.run(*chosen)
    (pretend.folder / "observed").unlink()
    together = pretend.run(*chosen, "-n2", "-v")
    assert sorted(observed(pretend)) == sorted(targets)
    assert together.exit_status == alone.exit_status
    for name in targets:
        one, other = alone.snapshots[name], together.snapshots[name]
        assert one["verdict"] == other["verdict"]
        assert [f["nodeid"] for f in one["findings"]] == [f["nodeid"] for f in other["findings"]]
        assert other["evidence"].keys() == one["evidence"].keys()
        assert other["unobserved"].keys() == one["unobserved"].keys()
        assert one["evidence"] or one["unobserved"]
        moment = next(f for f in other["findings"] if f["id"] == "db.moment")
        assert moment["details"] == [other["started"].replace("Z", "+00:00")]
    assert "@" not in "".join(line for line in together.lines if "::" in line)
    for name in targets:
        assert any(line.startswith(f"target: {name} ") for line in together.lines)


def test_workers_take_ordinary_tests_too(pretend: Pretend) -> None:
    """Tests that are no checks spread over the workers as ever."""
    pretend.checks(PASS)
    (pretend.folder / "tests").mkdir()
    (pretend.folder / "tests" / "test_other.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    run = pretend.run("-n2", "checks", "tests")
    assert run.exit_status == 0
    assert "3 passed" in run.output


def test_tests_without_checks_need_no_target(pretend: Pretend) -> None:
    """Running the tests of the suite opens no target and writes no report; pytest-html stays as it is."""
    (pretend.folder / "tests").mkdir()
    (pretend.folder / "tests" / "test_other.py").write_text("def test_one(): pass\n")
    run = pretend.run("tests", "--target", "no-such", "--html=plain.html", "--self-contained-html")
    assert run.exit_status == 0
    assert not run.folder.exists()
    assert "AlloDoc" not in (pretend.folder / "plain.html").read_text()


# -- pytest's own options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", ["--tb=no -rA -s", "--tb=long -l -ra --durations=3", "--tb=line -rfEs --no-header -vv", "--co"]
)
def test_options_of_pytest_work(pretend: Pretend, arguments: str) -> None:
    """No option of pytest's breaks a run, and none brings back a traceback for a failed check."""
    pretend.checks(FAIL + PORT + PASS + WARN)
    run = pretend.run(*arguments.split())
    assert run.exit_status == (0 if arguments == "--co" else 1), run.output
    for word in (
        "INTERNALERROR",
        "Traceback",
        "test_pretended.py:2",
        "test_pretended.py:3",
        "AssertionError",
        "= FAILURES =",
    ):
        assert word not in run.output, run.output
    if arguments != "--co":
        assert run.lines[-1].startswith("prod is failing: db.full")


def test_last_failed_runs_what_failed_or_was_blocked(pretend: Pretend) -> None:
    """--lf selects by the outcomes of the run before."""
    pretend.checks(FAIL + PORT + PASS + WARN)
    pretend.run()
    run = pretend.run("--lf")
    assert run.outcomes == {"db.full": "fail", "db.port": "fail", "db.login": "blocked"}


# -- the catalogue --------------------------------------------------------------------------------------


def test_symptoms_lists_the_catalogue_without_a_target(pretend: Pretend) -> None:
    """Every id with severity, title and remedy; nothing is opened, imported or observed."""
    pretend.checks(PASS + PORT + "    raise SystemExit('imported')")
    pretend.checks("not Python", file="checks/db/test_unreadable.py")
    pretend.guide("# Database issues\n\n## Port\n\nSymptoms: `db.port`\n\nIt.\n\n### Look\n\n1. See.\n")
    run = pretend.run("--symptoms", "--target", "no-such")
    assert run.exit_status == 0, run.output
    assert run.lines[:3] == ["db.fine   major", "    It is fine.", "    no remedy"]
    assert run.lines[3:6] == ["db.port   critical smoke", "    The port opens.", "    guide/database.md#port"]
    assert run.lines[-1] == "3 symptoms"


def test_explain_prints_the_remedy_for_the_target(pretend: Pretend) -> None:
    """With the target's names in the commands; looking apart from mending; and nothing is checked."""
    pretend.checks(PORT)
    pretend.guide(
        """
        # Database issues

        Usual time to resolve: 5–15 min

        ## The port is closed

        Symptoms: `db.port`

        Nobody listens.

        ### Look

        1. See the log:

           ```sh
           {{ logs("postgres") }}
           ```

        ### Mend

        1. Start it:

           Caution: it takes a moment.

           ```sh
           {{ start("postgres") }}
           ```

        ### Escalate

        After an hour.
        """
    )
    run = pretend.run("--explain", "db.port")
    assert run.exit_status == 0, run.errors
    assert [line.strip() for line in run.lines if line.strip()] == [
        "db.port   The port opens.   (critical, for prod)",
        "The port is closed   (guide/database.md#the-port-is-closed)",
        "Nobody listens.",
        "look (this only reads)",
        "1. See the log:",
        "docker logs --since 10m allodoc_postgres_prod 2>&1",
        "mend (this changes things)",
        "1. Start it:",
        "Caution: it takes a moment.",
        "docker start allodoc_postgres_prod",
        "usual time to resolve: 5–15 min",
        "escalate: After an hour.",
    ]
    assert not run.snapshots


def test_explain_knows_the_nearest_name(pretend: Pretend) -> None:
    """A wrong id is exit status 4 with the id that was meant."""
    pretend.checks(PORT)
    run = pretend.run("--explain", "db.prot")
    assert run.exit_status == 4
    assert "no symptom 'db.prot'; did you mean 'db.port'?" in run.errors
