"""What the page says, view by view: the map, the values near a limit, courses, room, and what can't be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from allodoc_health.finding import Measurement, Outcome, Severity
from allodoc_health.limits import Limit
from reports.history import Forecast
from reports.page.evidence import environment_view, evidence_view
from reports.page.measurements import nearest, nearness, spark
from reports.page.room import LIMIT, Room, rooms
from reports.page.service_map import place, service_map
from tests.beds.pages import (
    NOW,
    PageOf,
    crash_loop,
    daemon_frozen,
    everything,
    finding,
    healthy,
    measured,
    out_of_connections,
    report_of,
)
from tests.beds.pages import page_of as page_of
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

ADDRESSES = """
    @probe(guard="db.clients")
    def clients():
        return {"public": "203.0.114.9", "again": "from 203.0.114.9 port 5", "own": "10.0.0.7"}
    @symptom("db.clients", severity=Severity.MINOR)
    def test_clients(clients, finding):
        \"\"\"They are known.\"\"\"
        finding.warn(f"most come from {clients['public']}")
"""


@pytest.fixture
def room() -> Room:
    """Ample room."""
    return rooms()[0]


class TestMap:
    """Where a finding is drawn."""

    @pytest.mark.parametrize(
        ("id", "parameter", "where"),
        [
            ("service.running", "redis", "redis"),
            ("db.login", None, "postgres"),
            ("db.reachable-from-backend", None, "backend → postgres"),
            ("network.service-link", "backend-to-redis", "backend → redis"),
            ("network.backend", "direct", "backend"),
            ("network.backend", "edge", "nginx → backend"),
            ("tls.expiry", "app.example.org", "browser → nginx"),
            ("cache.ping", None, "redis"),
            ("auth.login", None, "backend"),
            ("host.disk", "root", "host"),
            ("deploy.log", None, "host"),
        ],
    )
    def test_a_place_for_each(self, id: str, parameter: str | None, where: str) -> None:
        """A symptom stands at the service, or on the way between two, that it is about."""
        assert place(finding(id, parameter=parameter), healthy()) == where

    def test_a_port_is_its_services(self) -> None:
        """A conflict about a port is drawn at the service that has the port."""
        services = {"postgres": {"port": 5432}, "nginx": {"port": 443, "http_port": 80}}
        report = report_of()
        target = report.target.model_copy(update={"services": type(report.target.services).model_validate(services)})
        report = replace(report, target=target)
        assert place(finding("service.port-conflict", parameter="80"), report) == "nginx"
        assert place(finding("service.port-conflict", parameter="5432"), report) == "postgres"

    def test_it_breaks_where_the_root_cause_is(self) -> None:
        """The root cause is told apart from what fails because of it, in signs and in words."""
        drawn = service_map(crash_loop())
        states = {one["name"]: (one["state"], one["sign"]) for one in (*drawn["nodes"], *drawn["links"])}
        assert states["backend"] == ("root", "✕")
        assert states["nginx → backend"] == ("fail", "■")
        assert states["redis"][0] == "warn"
        assert drawn["text"].startswith("A map of browser, nginx, frontend, backend, postgres, redis. backend breaks: ")

    def test_nothing_seen_is_not_well(self) -> None:
        """What could not be looked at has a look of its own, and what was not even tried is never green."""
        drawn = service_map(daemon_frozen())
        assert drawn["host"] == "root"
        assert {node["name"]: node["word"] for node in drawn["nodes"]} == {
            "browser": "users",
            "nginx": "partly seen",
            "frontend": "not seen",
            "backend": "not seen",
            "postgres": "not seen",
            "redis": "not seen",
        }
        assert {link["state"] for link in drawn["links"]} == {"unseen"}

    def test_what_a_target_lacks_is_not_drawn(self) -> None:
        """A deployment without a frontend of its own has no box and no way for it."""
        report = healthy()
        services = report.target.services.model_copy(update={"frontend": None})
        drawn = service_map(replace(report, target=report.target.model_copy(update={"services": services})))
        names = {one["name"] for one in (*drawn["nodes"], *drawn["links"])}
        assert not [name for name in names if "frontend" in name]
        assert drawn["height"] < service_map(report)["height"]


class TestMeasurements:
    """Values beside their limits, and over time."""

    @pytest.mark.parametrize(
        ("value", "worse", "near"),
        [(75, "above", 0.75), (200, "below", 0.5), (0, "above", 0), (float("inf"), "above", 0)],
    )
    def test_how_near_a_value_is(self, value: float, worse: str, near: float) -> None:
        """It is the share of the way to the first limit, from either side."""
        assert nearness(Measurement("used", value, "%", 100, 120, worse=worse)) == pytest.approx(near)

    def test_what_may_be_about_to_break(self) -> None:
        """What history foresees stands first, then what is nearest; what is beyond a limit is told elsewhere."""
        limit = Limit(warn=80, fail=95)
        found = [
            finding("host.disk", parameter="root", measurements=measured("used", 60, "%", limit)),
            finding("host.disk", parameter="data", measurements=measured("used", 75, "%", limit)),
            finding("host.disk", parameter="logs", measurements=measured("used", 10, "%", limit)),
            finding("host.disk", parameter="full", measurements=measured("used", 85, "%", limit)),
            finding("host.memory", measurements=measured("used", 20, "%", limit)),
        ]
        shown = nearest(found, {("host.memory", "used"): Forecast(per_day=10, days=6, limit=80)})
        assert [one["finding"] for one in shown] == ["host.memory", "host.disk[data]", "host.disk[root]"]
        assert shown[0]["soon"] == "at its limit in 6 d"

    def test_a_course_is_a_line(self) -> None:
        """The oldest value is at the left, the lowest at the bottom; two are needed at least."""
        points = tuple((NOW + timedelta(hours=hour), value) for hour, value in ((0, 10.0), (1, 30.0), (2, 20.0)))
        drawn = spark(points, "%")
        assert drawn == {
            "points": "1.0,18.0 50.0,2.0 99.0,10.0",
            "x": "99.0",
            "y": "10.0",
            "text": "3 runs in 2 h: 10 % to 30 %",
        }
        assert spark(points[:1], "%") is None


class TestEvidence:
    """Evidence as it is shown."""

    def test_every_kind_is_there(self, room: Room) -> None:
        """A usual run has an entry of each kind."""
        view = evidence_view(healthy(), room)
        assert all(view.values()), [name for name, section in view.items() if not section]
        first, _, third = view["timings"]
        assert (first["name"], first["total"]) == ("health edge", "210 ms")
        assert [phase["key"] for phase in first["phases"]] == ["lookup", "connect", "tls", "first-byte", "total"]
        assert sum(phase["width"] for phase in first["phases"]) == pytest.approx(100, abs=0.1)
        assert [phase["key"] for phase in third["phases"]] == ["connect", "first-byte", "total"]
        assert view["certificates"][0]["left"] == "30 d left"
        window = view["deploy_window"]
        assert window["text"] == "60 requests in 12 s, 93.33 % answered, the longest gap 800 ms"
        assert window["bad"] == ["second 4: 1 answered, 4 × 502"]
        assert window["seconds"][4]["failed"] == pytest.approx(8)
        assert dict(environment_view(healthy(), room))["image of backend"] == "allodoc/backend:2.14.1"

    @pytest.mark.parametrize(
        "broken", [{"each": [{}]}, {"each": 5}, {"median": None}, [1], "text", 7, None, {"failed": "no"}]
    )
    def test_what_cannot_be_read_costs_its_section(self, room: Room, broken: Any) -> None:
        """A recorded run of another version can hold anything."""
        report = healthy()
        for name in report.evidence:
            view = evidence_view(replace(report, evidence={**report.evidence, name: broken}), room)
            assert sum(not section for section in view.values()) <= 1, name


def test_a_big_night_fits_into_a_mail(page_of: PageOf) -> None:
    """Whatever the logs held: under 1 MB, every root cause named, and it says that something is left out."""
    report = out_of_connections()
    noise = [
        finding(
            "db.dead-rows",
            f"{number} " + "x" * 3000,
            Outcome.WARN,
            parameter=f"table_{number}",
            severity=Severity.MINOR,
            details=("y" * 3000,) * 50,
        )
        for number in range(3000)
    ]
    log = report.evidence["log_errors[postgres]"]
    groups = tuple(replace(log.groups[0], message="z" * 5000, count=number) for number in range(2000))
    report = replace(
        report,
        findings=[*report.findings, *noise],
        evidence={**report.evidence, "log_errors[postgres]": replace(log, groups=groups)},
    )
    page = page_of(report)
    assert len(page.encode()) <= LIMIT < 1_000_000
    assert "94 of 97 client connections" in page
    assert "To stay under 1 MB this page leaves out or shortens" in page
    assert "To stay under 1 MB" not in page_of(out_of_connections())


def test_it_is_told_what_others_know(page_of: PageOf) -> None:
    """History and the comparison with the run before have their say; without them the page does without."""
    report, past, comparison = everything()
    page = page_of(report, past=past, comparison=comparison)
    assert "began 3 times this month, comes and goes, was well again after 21 min on average" in page
    assert "in every run since Sun 22 Nov 02:12 UTC" in page
    assert "4 runs in 3 d: 60 % to 63 %" in page
    assert "db.connection-headroom: pass → fail" in page
    plain = page_of(report)
    assert "this month" not in plain
    assert "What changed since" not in plain


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one process", "workers"])
def test_equal_values_have_equal_tokens(pretend: Pretend, workers: list[str]) -> None:
    """A public address is a token, the same wherever it occurs and whichever process saw it; one's own is shown."""
    for name in ("prod", "staging"):
        pretend.target(name)
    pretend.checks(ADDRESSES)
    run = pretend.run("--target", "prod", "--target", "staging", *workers)
    evidence = [run.snapshots[name]["evidence"]["clients"] for name in ("prod", "staging")]
    token = evidence[0]["public"]
    assert token.startswith("‹")
    assert evidence == [{"public": token, "again": f"from {token} port 5", "own": "10.0.0.7"}] * 2
    assert run.page.count(f"most come from {token}") >= 2
    assert "203.0.114.9" not in run.page + run.output


def test_who_may_sees_addresses(pretend: Pretend) -> None:
    """--unmask-addresses shows them in every output, and the outputs say that it was asked for."""
    pretend.checks(ADDRESSES)
    run = pretend.run("--unmask-addresses")
    assert run.snapshot["evidence"]["clients"]["again"] == "from 203.0.114.9 port 5"
    assert "public client addresses are not masked" in run.output
    assert "Public addresses are not masked in this report" in run.page
