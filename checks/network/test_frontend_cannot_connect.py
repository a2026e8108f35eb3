"""The frontend can't connect to the backend: lost requests, CORS errors, nginx that passes nothing on."""

from __future__ import annotations

from allodoc_health.finding import Escalation, Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.cors import METHOD, CorsSettings, Preflight
from fixtures.links import Link, Way
from fixtures.names import Lookup
from fixtures.nginx import Configuration, Workers
from fixtures.nginx_connections import NginxConnections
from fixtures.service_links import ServiceLink
from fixtures.upstreams import UpstreamAnswer, Upstreams
from fixtures.ways import BackendWay

BACKEND = (
    "service.running[backend]",
    "service.stays-up[backend]",
    "service.restart-loop[backend]",
    "service.port-conflict",
    "service.required-env[backend]",
    "service.oom-killed[backend]",
    "host.cpu[backend]",
    "network.service-link[backend-to-postgres]",
    "host.docker",
)
STORES = (
    "service.running[postgres]",
    "service.running[redis]",
    "db.port",
    "db.accepts-connections",
    "db.login",
    "db.query",
    "db.parameters-match",
    "db.reachable-from-backend",
    "db.connection-headroom",
    "db.blocked-sessions",
    "cache.ping",
    "cache.clients",
)
SLOW = ("api.nodejs", "cache.slow-commands", "host.cpu[backend]")
"""What makes the API answer too late for somebody who does not wait for long."""
NGINX = (
    "service.running[nginx]",
    "service.stays-up[nginx]",
    "service.restart-loop[nginx]",
    "service.port-conflict",
    "network.nginx-config",
    "network.nginx-connections",
    "network.service-link[nginx-to-backend]",
    "tls.handshake",
    "host.docker",
)
BEHIND_NGINX = (
    "network.backend[direct]",
    "network.nginx-upstream",
    "network.service-link[nginx-to-backend]",
)
WORDS = {
    Way.UNRESOLVABLE: "the name does not resolve",
    Way.REFUSED: "connection refused",
    Way.TIMEOUT: "no answer in time",
    Way.UNREACHABLE: "no way there",
}


@symptom(
    "network.backend",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[*BEHIND_NGINX, *NGINX, *BACKEND, *STORES, *SLOW],
)
def test_the_backend_answers(backend_way: BackendWay, finding: Recorder) -> None:
    """The backend answers on each way to it, whatever it says."""
    exchange = backend_way.exchange
    finding.fact(url=exchange.url.partition("?")[0], address=exchange.address)
    silent = exchange.problem in ("silent", "unfinished")
    if backend_way.lost == "to nginx":
        finding.follows_only_from(*NGINX, *(("network.backend[direct]", *BACKEND, *STORES, *SLOW) if silent else ()))
        finding.fail(f"lost before nginx: {exchange.address}: {exchange.message}", variant="nginx")
    elif backend_way.lost == "within nginx":
        finding.follows_only_from(*(["network.nginx-connections"] if exchange.status == 500 else []))
        finding.fail(f"HTTP {exchange.status} by nginx itself; the backend was not asked", variant="refuses")
    elif backend_way.lost == "behind nginx":
        late = (*SLOW, *STORES) if exchange.status == 504 else STORES if silent else ()
        finding.follows_only_from(*BEHIND_NGINX, *BACKEND, *late)
        told = exchange.message if exchange.problem else f"HTTP {exchange.status}"
        if backend_way.page:
            finding.follows_only_from()
            finding.fail("lost within nginx: it answers with the page and passes nothing on", variant="page")
        elif backend_way.stale:
            finding.fail(f"{told} by nginx, though the backend answers from inside it", variant="stale")
        elif exchange.status == 504 and backend_way.behind:
            waited = f"nginx gave up after {duration(exchange.timings.total)}"
            answers = f", an answer takes {duration(backend_way.direct)}" if backend_way.direct is not None else ""
            finding.fail(f"HTTP 504: {waited}{answers}", variant="impatient")
        elif backend_way.behind:
            finding.fail(f"lost behind nginx: {told}, though the backend's port opens for it", variant="gateway")
        else:
            finding.fail(f"lost behind nginx: {told}, the backend gives it no answer", variant="gateway")
    elif backend_way.lost:
        # It does not listen before it has found both stores.
        finding.follows_only_from(*BACKEND, *STORES, *(SLOW if silent else ()))
        what = "it answers with a page" if backend_way.page else exchange.message or f"HTTP {exchange.status}"
        finding.fail(f"{exchange.address}: {what}", variant="silent" if silent else "")
    elif backend_way.limited:
        finding.warn(f"HTTP {exchange.status}: too many requests, says nginx; so the backend was not asked")
    else:
        finding.says(f"HTTP {exchange.status} from {exchange.address} within {duration(exchange.timings.total)}")


@symptom(
    "network.service-link",
    severity=Severity.CRITICAL,
    caused_by=[
        "service.running",
        "service.restart-loop",
        "service.oom-killed",
        "service.port-conflict",
        "network.service-link",
        "db.reachable-from-backend",
        "host.cpu",
        *STORES,
    ],
)
def test_the_services_reach_one_another(service_link: ServiceLink, limits: Limits, finding: Recorder) -> None:
    """From inside each service, the services that it needs resolve and open."""
    link, there = service_link.link, service_link.destination
    where = f"{link.host}:{link.port}"
    lost = service_link.stranded or service_link.source
    finding.fact(source=service_link.source, destination=there, lost=lost, host=link.host, port=link.port)
    finding.fact(**_strangers_of(link))
    finding.follows_only_from(*_causes_of_a_lost_link(service_link))
    if not link.tool:
        finding.note(f"the {service_link.source} ends too soon to look from inside it")
        finding.fail(f"no service is called {link.host}, expected {service_link.destination_name}", variant="name")
        return
    finding.note(f"looked from inside the {service_link.source} with {link.tool}{_found(link)}")
    if link.deaf:
        finding.sign_of(f"names inside the {service_link.source}")
    if link.strangers:
        finding.fail(link.astray, variant="claimed")
    if link.way is not Way.OPEN:
        finding.fail(f"{where} from the {service_link.source}: {WORDS[link.way]}", _variant(service_link))
        if service_link.stranded:
            finding.note(f"{service_link.stranded} is on no network")
        elif service_link.apart:
            finding.note("the two are on no network together")
    elif link.seconds is not None:
        finding.measure(f"reaching {where}", link.seconds, unit="s", limit=limits.network.link_response)
    else:
        finding.says(f"{where} is open from the {service_link.source}")


def _variant(link: ServiceLink) -> str:
    if link.stranded or link.apart:
        return "network"
    if link.link.deaf:
        return "resolver"
    return "name" if link.link.way is Way.UNRESOLVABLE else "closed"


def _causes_of_a_lost_link(link: ServiceLink) -> tuple[str, ...]:
    """What explains it: the destination is down, the database's own check of the same way, or one stranded service."""
    if link.link.strangers:
        # The service itself is not what answers, or not always. Whether it answers is told of the database apart.
        return ("db.reachable-from-backend",) if link.destination == "postgres" else ()
    down = [f"service.{check}[{link.destination}]" for check in ("running", "restart-loop", "oom-killed")]
    down += [f"service.port-conflict[{port}]" for port in link.published]
    if link.destination == "postgres":
        told = () if link.link.tool else ("db.parameters-match",)
        return (*down, *told, "db.reachable-from-backend", "db.accepts-connections")
    if link.destination == "backend" and link.link.way is Way.REFUSED:
        # It runs, and does not listen before it has found both stores.
        return (*down, *STORES)
    if link.stranded == "backend":
        return (*down, "network.service-link[backend-to-postgres]")
    if link.stranded == "nginx" and link.destination == "frontend":
        return (*down, "network.service-link[nginx-to-backend]")
    return tuple(down)


def _strangers_of(link: Link) -> dict[str, str]:
    """Who else has the name: what the remedy's commands need."""
    return {"stranger": name} if (name := next((one.container for one in link.strangers if one.container), "")) else {}


def _found(link: Link) -> str:
    return (
        f": the name leads to {', '.join(link.addresses)}" if link.addresses and link.host not in link.addresses else ""
    )


# -- CORS ----------------------------------------------------------------------------------------------------------

UNREACHED = (
    "network.backend[edge]",
    "network.backend[direct]",
    "api.response-time[direct]",
    *NGINX,
    *BACKEND,
    *STORES,
    *SLOW,
)
CONFIGURED = ("network.cors-config", "network.cors-foreign-origin")


@symptom(
    "network.cors-preflight",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[*UNREACHED, *CONFIGURED],
)
def test_the_page_may_log_in(cors_preflight: Preflight, finding: Recorder) -> None:
    """A page of the configured origin may send a login, with cookies."""
    exchange, origin = cors_preflight.exchange, cors_preflight.origin
    finding.fact(origin=origin, url=exchange.url, address=exchange.address)
    finding.note(f"OPTIONS {exchange.url} at {exchange.address}: HTTP {exchange.status or exchange.problem}")
    finding.says(f"{origin} may log in: {METHOD} with {', '.join(cors_preflight.headers)}")
    finding.sign_of("what answers preflights")
    if exchange.status is None or exchange.status >= 500:
        finding.follows_only_from(*UNREACHED)
        finding.fail(f"no answer to the preflight: {exchange.message or f'HTTP {exchange.status}'}", "unanswered")
        return
    if not exchange.ok or not cors_preflight.allow_origin:
        # Whoever gave this answer need not have been the backend.
        finding.follows_only_from("network.backend[edge]", "network.backend[direct]", *CONFIGURED)
    else:
        finding.follows_only_from(*CONFIGURED)
    if not exchange.ok:
        finding.fail(f"HTTP {exchange.status} for the preflight: browsers want a 2xx", "unanswered")
    elif not cors_preflight.allows_origin:
        finding.fail(*_refusal(cors_preflight))
    else:
        finding.follows_only_from()
        if not cors_preflight.allows_method:
            finding.fail(f"{METHOD} is not allowed, only {', '.join(cors_preflight.methods) or 'nothing'}", "method")
        if cors_preflight.missing_headers:
            finding.fail(f"headers not allowed: {', '.join(cors_preflight.missing_headers)}", "headers")
        if not cors_preflight.credentials:
            finding.fail("credentials are not allowed: the browser drops the session's cookies", "credentials")


def _refusal(preflight: Preflight) -> tuple[str, str]:
    allowed = preflight.allow_origin
    if not allowed:
        return "no Access-Control-Allow-Origin in the answer", ""
    if "," in allowed:
        return "several origins in one Access-Control-Allow-Origin: browsers refuse that", "list"
    if allowed == "*":
        return "* is allowed together with credentials, which browsers refuse", "wildcard"
    return f"{allowed[:60]} is allowed, not {preflight.origin[:60]}"[:110], ""


@symptom("network.cors-foreign-origin", severity=Severity.CRITICAL, caused_by=UNREACHED)
def test_a_foreign_page_may_not(foreign_preflight: Preflight, finding: Recorder) -> None:
    """An origin that nobody knows is not allowed, least of all with credentials."""
    exchange, allowed = foreign_preflight.exchange, foreign_preflight.allow_origin
    finding.fact(origin=foreign_preflight.origin, url=exchange.url, address=exchange.address)
    if exchange.status is None or exchange.status >= 500:
        finding.fail(f"no answer to the preflight: {exchange.message or f'HTTP {exchange.status}'}", "unanswered")
        return
    finding.follows_only_from()
    finding.says("a foreign origin is told nothing" if not allowed else "a foreign origin is told another one")
    if allowed in (foreign_preflight.origin, "null"):
        with_cookies = " with credentials" if foreign_preflight.credentials else ""
        finding.fail(f"any origin is allowed{with_cookies}, as the answer repeats whatever asks", "reflected")
        if foreign_preflight.credentials:
            finding.escalate(Escalation.NOW, "any web site may act as the user who visits it")
    elif allowed == "*":
        with_cookies = ", and credentials" if foreign_preflight.credentials else ""
        finding.fail(f"Access-Control-Allow-Origin is *: any origin is allowed{with_cookies}")


@symptom("network.cors-config", severity=Severity.MAJOR)
def test_cors_origin_is_where_the_page_is(cors_settings: CorsSettings, finding: Recorder) -> None:
    """CORS_ORIGIN in the backend covers the address that the page is served at."""
    shown = ", ".join(cors_settings.origins) or "none"
    finding.note(*(f"the page: {page}" for page in (cors_settings.pages or cors_settings.places)[:6]))
    if cors_settings.same_site:
        finding.note("nginx serves page and API together: requests between the two need no CORS")
    if not cors_settings.given:
        finding.not_applicable("the backend is told no CORS_ORIGIN: it uses its own default")
    if cors_settings.unreadable:
        finding.fail(f"CORS_ORIGIN holds {cors_settings.unreadable} entries that are no origin", variant="malformed")
    if cors_settings.wildcard:
        finding.says("CORS_ORIGIN is *, which covers any page")
        return
    finding.says(f"CORS_ORIGIN is {shown}")
    places = {*cors_settings.pages, *cors_settings.places}
    if set(cors_settings.origins) & places or not cors_settings.origins:
        return
    named = [origin for origin in cors_settings.origins if not _is_local(origin)]
    if not cors_settings.pages and (named or not cors_settings.places):
        finding.not_applicable(f"nothing tells by which name users come: CORS_ORIGIN says {shown}")
    page = (cors_settings.pages or cors_settings.places)[0]
    finding.fact(origin=page)
    finding.fail(f"CORS_ORIGIN is {shown[:50]}, but the page is served at {page[:50]}")


def _is_local(origin: str) -> bool:
    return origin.partition("://")[2].partition(":")[0] in ("localhost", "127.0.0.1", "[")


# -- nginx ---------------------------------------------------------------------------------------------------------


@symptom(
    "network.nginx-config",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "service.running[backend]",
        "service.running[frontend]",
        "service.restart-loop[backend]",
        "service.restart-loop[frontend]",
        "network.service-link[nginx-to-backend]",
        "network.service-link[nginx-to-frontend]",
    ],
)
def test_nginx_would_load_its_configuration(nginx_configuration: Configuration, finding: Recorder) -> None:
    """nginx -t passes, without warnings: a reload or a restart would work."""
    files = nginx_configuration.directives.files
    finding.says(f"nginx -t passes for {len(files)} files")
    objection = nginx_configuration.objection
    if objection is not None:
        role = objection.role
        down = (f"service.running[{role}]", f"service.restart-loop[{role}]", f"network.service-link[nginx-to-{role}]")
        finding.follows_only_from(*(down if role else ()))
        finding.fact(file=objection.place.partition(":")[0] or (files[0] if files else "/etc/nginx/nginx.conf"))
        finding.fact(host=objection.host or "backend", role=role or "backend")
        finding.fail(f"nginx -t fails: {objection.text}"[:110], variant=objection.kind)
        finding.note(objection.text if len(objection.text) > 90 else "")
        finding.note(f"at {objection.place}; it still runs with what it loaded before" if objection.place else "")
    for warning in nginx_configuration.warnings:
        finding.warn(f"nginx -t warns: {warning}"[:110], variant="warnings")


@symptom("network.nginx-loaded", severity=Severity.MINOR)
def test_nginx_runs_with_what_is_on_disk(nginx_workers: Workers, finding: Recorder) -> None:
    """nginx' workers began after its configuration was last changed."""
    finding.says(f"{nginx_workers.count} workers have run for {duration(nginx_workers.age)}, all files are older")
    if nginx_workers.newer:
        first = nginx_workers.newer[0]
        finding.fact(file=first.path)
        began = f"the workers began {duration(nginx_workers.age)} ago"
        finding.warn(f"{first.path} was changed {duration(first.age)} ago, {began}")
        finding.note(*(f"{file.path} was changed {duration(file.age)} ago" for file in nginx_workers.newer[1:]))
    if nginx_workers.draining:
        finding.note(f"{nginx_workers.draining} older workers finish their last requests")


@symptom("network.nginx-connections", severity=Severity.CRITICAL, caused_by=["network.backend[direct]"])
def test_nginx_has_connections_left(nginx_connections: NginxConnections, finding: Recorder) -> None:
    """nginx has connections for its clients and for what it passes on."""
    seen = nginx_connections
    finding.says("nginx had a connection for everybody in the last two minutes")
    if seen.refused:
        finding.note(f"{seen.refused} times it turned a client away, or could not pass a request on")
    if seen.limit:
        finding.fail(f"{seen.limit} worker_connections are not enough, nginx logged {seen.logged} times in 2 min")


@symptom(
    "network.nginx-upstream",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "service.running",
        "service.restart-loop",
        "service.oom-killed",
        "network.service-link[nginx-to-backend]",
        "network.service-link[nginx-to-frontend]",
        "network.nginx-config",
    ],
)
def test_the_servers_behind_nginx_answer(upstreams: Upstreams, finding: Recorder) -> None:
    """Each server behind nginx resolves and answers at the address that nginx asks."""
    for answer in upstreams.answers:
        part = finding[answer.name]
        part.follows_only_from(*_causes_of_a_lost_upstream(answer))
        part.fact(role=answer.role or "backend", source="nginx", destination=answer.role or "backend")
        part.fact(host=answer.link.host, port=answer.link.port, **_strangers_of(answer.link))
        part.note(f"upstream {answer.group}, looked at from inside nginx with {answer.link.tool}{_found(answer.link)}")
        part.says(f"{answer.name} answers nginx")
        if answer.stale:
            asked = f"asks {answer.asked}" if answer.asked else "asks an old address"
            leads = ", ".join(answer.link.addresses)
            got = f"HTTP {answer.status}" if answer.status else "no answer"
            part.fail(f"{got}: nginx {asked}, the name leads to {leads}", variant="stale")
        elif answer.link.strangers:
            part.fail(answer.link.astray, variant="claimed")
        elif answer.answers:
            continue
        elif answer.down:
            part.says(f"{answer.name} is marked as down in the configuration")
        elif answer.siblings:
            part.warn(f"{WORDS[answer.link.way]}; {answer.siblings} others of {answer.group} answer")
        else:
            variant = "name" if answer.link.way is Way.UNRESOLVABLE else ""
            part.fail(f"{answer.name} from nginx: {WORDS[answer.link.way]}", variant=variant)


def _causes_of_a_lost_upstream(answer: UpstreamAnswer) -> tuple[str, ...]:
    # A name in the file that leads nowhere is not what runs: nginx could not have loaded it.
    unknown = ("network.nginx-config",) if answer.link.way is Way.UNRESOLVABLE else ()
    if not answer.role or answer.stale:
        return unknown
    down = [f"service.{check}[{answer.role}]" for check in ("running", "restart-loop", "oom-killed")]
    return (*unknown, *down, f"network.service-link[nginx-to-{answer.role}]")


@symptom("network.dns", severity=Severity.MAJOR)
def test_the_public_name_resolves(public_names: tuple[Lookup, ...], finding: Recorder) -> None:
    """The name that users type resolves, to this machine where that can be known."""
    for lookup in public_names:
        part = finding[lookup.name]
        part.fact(name=lookup.name)
        if lookup.problem:
            told = f"{lookup.name}: {lookup.problem}"
            if lookup.asserted and not lookup.silent:
                part.fail(told)
            else:
                part.warn(told)
                part.note("looked up from this machine, which need not know the name that users type")
            continue
        part.says(f"{lookup.name} leads to {', '.join(lookup.addresses)}")
        if lookup.here:
            part.note("which is this machine")
        elif lookup.here is False:
            part.note("which is no address of this machine: a load balancer or a router may stand in front of it")
