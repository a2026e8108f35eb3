"""The map of a target: who talks to whom, and where that breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from allodoc_health.finding import Finding, Outcome
from allodoc_health.run import TargetReport

BROWSER, HOST = "browser", "host"

# Who needs whom, from the user inwards. What a target does not have is left out.
LINKS = (
    ("browser", "nginx"),
    ("nginx", "frontend"),
    ("nginx", "backend"),
    ("backend", "postgres"),
    ("backend", "redis"),
)

# Where a symptom is seen, if not in the service that it names: by id, or by the part before the dot.
_WHERE = {
    "db.reachable-from-backend": "backend → postgres",
    "db.parameters-match": "backend → postgres",
    "db.pool-size-fits": "backend → postgres",
    "auth.token-store": "redis",
    "network.nginx-upstream": "nginx → backend",
    "network.nginx-config": "nginx",
    "network.nginx-loaded": "nginx",
    "network.nginx-connections": "nginx",
    "network.dns": "browser → nginx",
    "network.cors-preflight": "browser → nginx",
    "network.cors-foreign-origin": "browser → nginx",
    "network.cors-config": "backend",
    "deploy.upstream-errors": "nginx → backend",
    "deploy.migrations": "backend",
    "deploy.dependencies": "backend",
    "deploy.env-parity": "backend",
    "logs.top-clients": "browser → nginx",
    "logs.sql-errors": "backend",
    "tls.served-is-installed": "nginx",
    "db": "postgres",
    "cache": "redis",
    "auth": "backend",
    "api": "backend",
    "tls": "browser → nginx",
}
_WAYS = {
    "network.backend[direct]": "backend",
    "service.health-endpoint[direct]": "backend",
    "network.backend[edge]": "nginx → backend",
    "service.health-endpoint[edge]": "nginx → backend",
    "service.app-loads[edge]": "nginx",
    "api.response-time[edge]": "browser → nginx",
    "auth.clock-skew[db]": "postgres",
}

# From grave to harmless. Each has a sign and a word of its own, so that nobody needs to see its colour.
STATES = {
    "root": ("✕", "breaks"),
    "fail": ("■", "fails"),
    "blocked": ("◆", "not seen"),
    "warn": ("▲", "warns"),
    "waived": ("◇", "waived"),
    "pass": ("●", "well"),
    "unseen": ("–", "not checked"),
    "absent": ("–", "absent"),
}
_ORDER = tuple(STATES)
_OUTCOMES = {
    Outcome.FAIL: "fail",
    Outcome.BLOCKED: "blocked",
    Outcome.WARN: "warn",
    Outcome.WAIVED: "waived",
    Outcome.PASS: "pass",
    Outcome.NOT_APPLICABLE: "unseen",
}

WIDTH, HEIGHT = 86, 44
_COLUMNS = {"browser": 4, "nginx": 116, "frontend": 228, "backend": 228, "postgres": 340, "redis": 340}


def service_map(report: TargetReport) -> dict[str, Any]:
    """What the map draws: places and links with their states, and in words where something is not as it should be."""
    roles = set(report.target.roles)
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(place(finding, report), []).append(finding)
    names = [BROWSER, *(role for role in ("nginx", "frontend", "backend", "postgres", "redis") if role in roles)]
    rows = _rows(roles)
    nodes = [_node(name, rows[name], found.get(name, ()), report) for name in names]
    links = [
        _link(source, destination, rows, found.get(f"{source} → {destination}", ()), report)
        for source, destination in LINKS
        if {source, destination} <= set(names)
    ]
    host = _state(found.get(HOST, ()), report)
    if host == "pass":
        host = "unseen"  # that it runs is no news; the frame is only drawn loudly when it does not
    places = [*nodes, *links, {"name": "host and deployment", "state": host, "findings": found.get(HOST, ())}]
    broken = [
        {
            "name": one["name"],
            "state": one["state"],
            "word": _word(one["state"], one["findings"]),
            "why": _why(one, report),
        }
        for one in sorted(places, key=lambda one: _ORDER.index(one["state"]))
        if one["state"] in ("root", "fail", "blocked", "warn")
    ]
    return {
        "nodes": nodes,
        "links": links,
        "host": host,
        "height": max(row + HEIGHT for name, row in rows.items() if name in names) + 12,
        "broken": broken,
        "text": _sentence(broken, names),
    }


def place(finding: Finding, report: TargetReport) -> str:
    """Where on the map a finding belongs: a service, the browser, a way between two, or the host."""
    if finding.id == "network.service-link":
        source, _, destination = (finding.parameter or "").partition("-to-")
        return f"{source} → {destination}"
    if finding.name in _WAYS:
        return _WAYS[finding.name]
    services = report.target.services
    for role in report.target.roles:
        settings = services.get(role)
        ports = {str(getattr(settings, name, None)) for name in ("port", "http_port")}
        if finding.parameter == role or (finding.id == "service.port-conflict" and finding.parameter in ports):
            return role
    return _WHERE.get(finding.id) or _WHERE.get(finding.id.partition(".")[0]) or HOST


def _rows(roles: set[str]) -> Mapping[str, int]:
    """The top of each box. The backend stands above the frontend where there is one, and in the middle otherwise."""
    if "frontend" in roles:
        return {"browser": 58, "nginx": 58, "backend": 30, "frontend": 110, "postgres": 4, "redis": 58}
    return {"browser": 42, "nginx": 42, "backend": 42, "frontend": 42, "postgres": 12, "redis": 72}


def _state(findings: Sequence[Finding], report: TargetReport) -> str:
    roots = set(report.verdict.root_causes)
    states = {"root" if finding.name in roots else _OUTCOMES[finding.outcome] for finding in findings}
    return min(states, key=_ORDER.index, default="unseen")


def _word(state: str, findings: Sequence[Finding]) -> str:
    """A state in a word or two, for the map and for whoever can't see it."""
    partly = state == "blocked" and any(finding.outcome is Outcome.PASS for finding in findings)
    return "partly seen" if partly else STATES[state][1]


def _node(name: str, top: int, findings: Sequence[Finding], report: TargetReport) -> dict[str, Any]:
    state = _state(findings, report)
    return {
        "name": name,
        "x": _COLUMNS[name],
        "y": top,
        "state": state,
        "sign": "" if name == BROWSER else STATES[state][0],
        "word": "users" if name == BROWSER else _word(state, findings),
        "findings": findings,
    }


def _link(
    source: str, destination: str, rows: Mapping[str, int], findings: Sequence[Finding], report: TargetReport
) -> dict[str, Any]:
    state = _state(findings, report)
    x1, x2 = _COLUMNS[source] + WIDTH, _COLUMNS[destination]
    y1, y2 = rows[source] + HEIGHT // 2, rows[destination] + HEIGHT // 2
    return {
        "name": f"{source} → {destination}",
        "state": state,
        "sign": STATES[state][0] if state in ("root", "fail", "blocked", "warn") else "",
        "x1": x1,
        "y1": y1,
        "x2": x2 - 2,
        "y2": y2,
        "turn": round(math.degrees(math.atan2(y2 - y1, x2 - x1)), 1),
        "x": (x1 + x2) // 2,
        "y": (y1 + y2) // 2,
        "findings": findings,
    }


def _why(one: Mapping[str, Any], report: TargetReport) -> list[str]:
    """The names of the findings that give a place its state."""
    return [finding.name for finding in one["findings"] if _state([finding], report) == one["state"]]


def _sentence(broken: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The map in a sentence, for whoever can't see it."""
    path = f"A map of {', '.join(names)}."
    if not broken:
        return f"{path} Nothing on it is broken."
    return f"{path} " + " ".join(f"{one['name']} {one['word']}: {', '.join(one['why'][:3])}." for one in broken)
