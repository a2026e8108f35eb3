"""The evidence that a page shows in full: how long answers take, statements, logs, services, certificates.

Evidence is read as the snapshot holds it, as plain data. What a probe could not observe has no entry here: its check
says so. All of it is text from outside, whatever it looks like; templates escape it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from allodoc_health.finding import duration, size
from allodoc_health.run import TargetReport, to_json
from reports.page.room import Room

PHASES = ("lookup", "connect", "tls", "first_byte", "total")
"""The ends of the phases of a request, in their order; each counts from its beginning."""

_PHASE_WORDS = {
    "lookup": "lookup",
    "connect": "connect",
    "tls": "TLS",
    "first_byte": "first byte",
    "total": "rest of the answer",
}


def evidence_view(report: TargetReport, room: Room) -> dict[str, Any]:
    """The sections of evidence that there is any of, by name. One that can't be read is left out, not the page."""
    sections: dict[str, Callable[[TargetReport, Room], Sequence[Any] | Mapping[str, Any]]] = {
        "deploy_window": _deploy_window,
        "timings": _timings,
        "statements": _statements,
        "logs": _logs,
        "services": _services,
        "certificates": _certificates,
        "sessions": _sessions,
    }
    view: dict[str, Any] = {}
    for name, read in sections.items():
        try:
            view[name] = read(report, room)
        except (KeyError, TypeError, ValueError, AttributeError):
            view[name] = []
    return view


def environment_view(report: TargetReport, room: Room) -> list[tuple[str, str]]:
    """What runs, by what it says of itself: versions, revision, images."""
    rows: list[tuple[str, str]] = []
    try:
        rows += _versions(report)
    except (KeyError, TypeError, ValueError, AttributeError):
        rows.append(("versions", "could not be read"))
    return [(name, room.text(value)) for name, value in rows if value]


def _record(report: TargetReport, name: str) -> dict[str, Any]:
    """A piece of evidence as plain data; empty for one that was not to be had."""
    value = to_json(report.evidence.get(name))
    return value if isinstance(value, dict) else {}


def _records(report: TargetReport, probe: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The evidence of a probe for each of its parameters, as plain data."""
    for name in report.evidence:
        start, _, parameter = name.partition("[")
        if start == probe and (record := _record(report, name)):
            yield parameter.removesuffix("]"), record


def _deploy_window(report: TargetReport, room: Room) -> dict[str, Any]:
    """The requests of ``--deploy-window`` second by second, as bars of answered and failed ones in tenths."""
    record = _record(report, "deploy_window")
    if not record:
        return {}
    seconds = []
    most = max((one["answered"] + sum(one["failed"].values()) for one in record["by_second"]), default=1)
    for one in room.some(record["by_second"], room.rows):
        failed = sum(one["failed"].values())
        answered = one["answered"]
        why = ", ".join(f"{count} × {word}" for word, count in one["failed"].items())
        seconds.append(
            {
                "answered": round(10 * answered / most, 2),
                "failed": round(10 * failed / most, 2),
                "top": round(10 - 10 * answered / most, 2),
                "below": round(10 - 10 * (answered + failed) / most, 2),
                "text": room.text(f"second {one['offset']}: {answered} answered{f', {why}' if why else ''}"),
            }
        )
    failed = sum(record["failed"].values())
    share = 100 * (1 - failed / record["sent"]) if record["sent"] else 0.0
    said = f"{record['sent']} requests in {duration(record['seconds'])}, {share:.4g} % answered"
    gap = f", the longest gap {duration(record['longest_gap'])}" if failed else ""
    bad = [one["text"] for one in seconds if one["failed"]]
    return {"text": said + gap, "seconds": seconds, "bad": room.some(bad, room.lines)}


def _timings(report: TargetReport, room: Room) -> list[dict[str, Any]]:
    """The requests that were timed, the longest first: each phase as a share of the longest of all."""
    timed: list[tuple[str, str, Mapping[str, Any]]] = []
    for way, record in _records(report, "response_time"):
        timed.append((f"health {way}", record["url"], record["median"]))
    for page, record in _records(report, "loaded_page"):
        timed.append((f"page {page}", record["exchange"]["url"], record["exchange"]["timings"]))
    longest = max((float(timings["total"]) for _, _, timings in timed), default=0.0)
    if longest <= 0:
        return []
    rows = []
    for name, url, timings in sorted(timed, key=lambda one: -one[2]["total"]):
        phases = []
        before = 0.0
        for phase in PHASES:
            end = timings[phase]
            if end is None:
                continue
            phases.append(
                {
                    "key": phase.replace("_", "-"),
                    "word": _PHASE_WORDS[phase],
                    "text": duration(max(0.0, end - before)),
                    "x": round(100 * before / longest, 2),
                    "width": round(100 * max(0.0, end - before) / longest, 2),
                }
            )
            before = max(before, end)
        rows.append({"name": name, "url": room.text(url), "total": duration(timings["total"]), "phases": phases})
    return room.some(rows)


def _statements(report: TargetReport, room: Room) -> list[dict[str, Any]]:
    """The statements that are slowest, and those that take the most time altogether."""
    record = _record(report, "statement_statistics")
    each = {
        one["queryid"] + one["text"]: one for key in ("heaviest", "slowest") for one in record.get(key, ())
    }.values()
    ranked = sorted(each, key=lambda one: -one["total"])
    return [
        {
            "text": room.text(one["text"]),
            "calls": f"{one['calls']:,}".replace(",", " "),
            "mean": duration(one["mean"]),
            "slowest": duration(one["slowest"]),
            "total": duration(one["total"]),
        }
        for one in room.some(ranked)
    ]


def _logs(report: TargetReport, room: Room) -> list[dict[str, Any]]:
    """For each service the errors in its log, grouped."""
    return [
        {
            "service": service,
            "errors": record["errors"],
            "warnings": record["warnings"],
            "lines": record["lines"],
            "within": duration(record["seconds"]),
            "truncated": bool(record["truncated"]),
            "groups": [
                {
                    "level": group["level"],
                    "count": group["count"],
                    "last": _moment(group["last"]),
                    "message": room.text(group["message"]),
                }
                for group in room.some(record["groups"])
            ],
        }
        for service, record in _records(report, "log_errors")
    ]


def _services(report: TargetReport, room: Room) -> list[dict[str, Any]]:
    """What the runtime says of each service's container or process."""
    return [
        {
            "role": role,
            "name": room.text(state["name"]),
            "status": state["status"],
            "health": (state["health"] or {}).get("status", "") or "no health check",
            "image": room.text(state["image"]),
            "started": _moment(state["started_at"]),
            "restarts": state["restart_count"],
            "exit": "" if state["exit_code"] is None else f"exit code {state['exit_code']}",
            "error": room.text(state["error"]),
            "memory": size(state["memory_limit"]) if state["memory_limit"] else "none",
        }
        for role, state in _record(report, "service_states").items()
    ]


def _certificates(report: TargetReport, room: Room) -> list[dict[str, Any]]:
    """The certificates that are served, each with the days that it had left at the moment of the run."""
    rows = []
    for handshake in _record(report, "handshakes").get("each", ()):
        for certificate in handshake["chain"][:1]:
            ends = datetime.fromisoformat(certificate["not_after"])
            left = (ends - report.started).total_seconds()
            rows.append(
                {
                    "host": room.text(handshake["host"]["name"]),
                    "subject": room.text(certificate["subject"]),
                    "signed_by": room.text(certificate["signed_by"]),
                    "begins": _moment(certificate["not_before"]),
                    "ends": _moment(certificate["not_after"]),
                    "left": f"{duration(left)} left" if left > 0 else f"ended {duration(-left)} ago",
                    "expired": left <= 0,
                    "version": handshake["version"] or handshake["problem"],
                }
            )
    return room.some(rows)


def _sessions(report: TargetReport, room: Room) -> list[dict[str, Any]]:
    """PostgreSQL's sessions, counted by who they are and what they do, the most numerous first."""
    counts: dict[tuple[str, ...], list[float]] = {}
    for session in _record(report, "sessions").get("sessions", ()):
        who = (session["user"] or "", session["application"] or "", session["state"] or session["kind"] or "")
        counts.setdefault(who, []).append(session["state_age"] or 0.0)
    ranked = sorted(counts.items(), key=lambda one: -len(one[1]))
    return [
        {"count": len(ages), "user": room.text(user), "application": room.text(application), "state": state,
         "oldest": duration(max(ages))}
        for (user, application, state), ages in room.some(ranked)
    ]  # fmt: skip


def _versions(report: TargetReport) -> Iterator[tuple[str, str]]:
    info = _record(report, "runtime_report").get("info") or {}
    yield "runtime", f"{info.get('name', report.target.runtime.kind)} {info.get('version', '')}".strip()
    yield "PostgreSQL", str(_record(report, "round_trip").get("version", ""))
    revisions = _record(report, "revisions")
    if revisions:
        branch = f" on {revisions['branch']}" if revisions["branch"] else ""
        yield "commit on disk", f"{revisions['commit']}{branch}"
        for role, commit in revisions["running"].items():
            yield f"commit of the {role} that runs", commit
    for role, state in _record(report, "service_states").items():
        yield f"image of {role}", state["image"]


def _moment(text: str | None) -> str:
    return "" if text is None else datetime.fromisoformat(text).astimezone(UTC).strftime("%d %b %Y %H:%M:%S UTC")
