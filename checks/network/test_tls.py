"""SSL and HTTPS: handshakes, certificates that browsers trust and that last, nothing sent without TLS."""

from __future__ import annotations

from datetime import datetime

from allodoc_health.finding import Failed, Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.front_door import PlainDoor
from fixtures.page import Page
from fixtures.tls import Handshake, Handshakes, InstalledCertificate, Lifetime

NGINX = (
    "service.running[nginx]",
    "service.stays-up[nginx]",
    "service.restart-loop[nginx]",
    "service.port-conflict",
    "network.service-link[nginx-to-backend]",
    "host.docker",
)
OLD = ("SSL 3.0", "TLS 1.0", "TLS 1.1")


@symptom("tls.handshake", severity=Severity.CRITICAL, smoke=True, caused_by=[*NGINX, "network.nginx-connections"])
def test_hands_are_shaken(handshakes: Handshakes, finding: Recorder) -> None:
    """A TLS handshake completes, and nothing older than TLS 1.2 is accepted."""
    for handshake in handshakes.each:
        part = finding[handshake.host.name]
        part.fact(host=handshake.host.name, address=handshake.address)
        if handshake.problem:
            if handshake.problem not in ("refused", "filtered", "unreachable", "silent", "reset"):
                part.follows_only_from()
            part.sign_of(f"{handshake.address}: {handshake.problem}")
            variant = "plain" if handshake.problem == "plain" else "closed" if handshake.problem == "refused" else ""
            part.fail(f"{handshake.address}: {handshake.message}", variant=variant)
            continue
        version = handshake.version.replace("TLSv", "TLS ")
        part.says(f"{version} with {handshake.cipher} within {duration(handshake.seconds)}, from {handshake.oldest} on")
        if handshake.oldest in OLD:
            part.warn(f"{handshake.oldest} is still accepted, as no browser has asked for since 2020", variant="old")


@symptom("tls.trust", severity=Severity.CRITICAL, smoke=True, caused_by=["network.nginx-connections"])
def test_browsers_trust_the_certificate(handshakes: Handshakes, finding: Recorder) -> None:
    """The certificate is for the name, and its chain leads to a trusted authority."""
    for handshake in handshakes.completed:
        part = finding[handshake.host.name]
        part.fact(host=handshake.host.name, address=handshake.address)
        own = handshake.own
        if own is None:
            part.fail(f"the certificate can't be parsed: {handshake.unparsed or 'none was sent'}"[:110], "unparsable")
            continue
        part.sign_of(own.fingerprint)
        part.note(*(f"{one.subject}, signed by {one.signed_by}" for one in handshake.chain))
        if handshake.distrust != "unfinished":
            part.follows_only_from()
        part.says(f"trusted, signed by {own.signed_by}")
        host = handshake.host
        if not own.is_for(host.name):
            told = f"the certificate is for {', '.join(own.names[:3]) or 'no name at all'}, not for {host.name}"
            (part.fail if host.sni else part.warn)(told, "name")
        if handshake.distrust:
            (part.warn if host.lenient else part.fail)(_doubt(handshake), handshake.distrust)
            if host.lenient:
                part.note(f"no failure here, because {host.lenient}")


def _doubt(handshake: Handshake) -> str:
    last = handshake.chain[-1]
    also = ", nor by the target's ca_file" if handshake.own_authority else ""
    if handshake.distrust == "self-signed":
        return f"self-signed: trusted by no browser{also}"
    if handshake.distrust == "unknown-authority":
        return f"signed by {last.signed_by}, which is trusted by no browser{also}"
    if handshake.distrust == "incomplete":
        return f"the chain ends at {last.subject}: {last.signed_by} was not sent and is not known"
    return handshake.verdict if handshake.distrust == "unfinished" else f"not trusted: {handshake.verdict}"


@symptom("tls.expiry", severity=Severity.CRITICAL, smoke=True)
def test_the_certificate_lasts(
    lifetimes: tuple[Lifetime, ...], now: datetime, limits: Limits, finding: Recorder
) -> None:
    """The certificates that are served are in date, and stay so for weeks."""
    for lifetime in lifetimes:
        part = finding[lifetime.host]
        part.fact(host=lifetime.host)
        part.sign_of(f"{lifetime.whose} {lifetime.ends}")
        left = (lifetime.ends - now).total_seconds()
        reload = "reload" if lifetime.on_disk else ""
        if lifetime.begins > now:
            wait = duration((lifetime.begins - now).total_seconds())
            part.fail(f"not valid yet: from {lifetime.begins:%Y-%m-%d %H:%M} UTC on, in {wait}", variant="early")
        elif left <= 0:
            part.fail(f"expired {duration(-left)} ago, on {lifetime.ends:%Y-%m-%d %H:%M} UTC", reload or "expired")
            part.began(lifetime.ends)
        part.measure(f"{lifetime.whose} lasts", left, unit="s", limit=limits.tls.lasts)
        if lifetime.on_disk:
            part.note(f"the file on disk lasts until {lifetime.on_disk:%Y-%m-%d}: a reload is all that is missing")


@symptom("tls.served-is-installed", severity=Severity.MINOR)
def test_what_is_served_is_on_disk(installed_certificates: tuple[InstalledCertificate, ...], finding: Recorder) -> None:
    """The certificate that is served is the one in the file."""
    for one in installed_certificates:
        part = finding[one.host]
        part.fact(host=one.host, file=one.path)
        part.says(f"{one.path} is what is served")
        if one.same is None:
            part.warn(f"{one.path}: {one.problem}; nginx serves what it loaded before", variant="unreadable")
        elif not one.same and one.installed is not None and one.served is not None:
            ends = f"until {one.served.not_after:%Y-%m-%d} is served, until {one.installed.not_after:%Y-%m-%d} on disk"
            part.warn(f"another certificate is served than installed: {ends}")


@symptom("tls.http-redirect", severity=Severity.MAJOR, smoke=True, caused_by=[*NGINX, "tls.handshake"])
def test_port_80_leads_to_https(plain_door: PlainDoor, finding: Recorder) -> None:
    """Port 80 sends browsers to HTTPS, which tells them to stay with TLS."""
    plain = plain_door.plain
    finding.fact(url=plain.url.partition("?")[0], address=plain.address)
    if not plain_door.leads_to_tls:
        if plain.problem:
            finding.fail(f"port 80: {plain.message}")
        else:
            finding.follows_only_from()
            to = f" to {plain.location[:40]}" if plain.location else ""
            finding.fail(f"HTTP {plain.status}{to} on port 80, expected a redirect to https")
    elif plain_door.secure.status is not None and not plain_door.strict_seconds:
        finding.warn("no Strict-Transport-Security: browsers try without TLS again", variant="hsts")
    else:
        finding.says(f"HTTP {plain.status} to https, then Strict-Transport-Security")


@symptom("tls.mixed-content", severity=Severity.MAJOR, only=["edge"])
def test_the_page_loads_nothing_without_tls(loaded_page: Page, finding: Recorder) -> None:
    """The page and what it loads refer to nothing by http://."""
    exchange = loaded_page.exchange
    if not exchange.url.startswith("https://"):
        finding.not_applicable("the page is served without TLS here")
    if not exchange.ok:
        why = exchange.message or f"HTTP {exchange.status} for the page"
        raise Failed(why, guard="service.app-loads[edge]")
    finding.says(f"nothing by http:// in the page and {len(loaded_page.assets)} files")
    active = [one for one in loaded_page.insecure if one.active]
    passive = [one for one in loaded_page.insecure if not one.active]
    finding.note(*(f"{one.where}: {one.url[:100]}" for one in (*active, *passive)))
    if loaded_page.upgrades:
        finding.says("browsers are told to ask with TLS for whatever says http://")
    elif active:
        finding.fact(file=active[0].where)
        finding.fail(f"{len(active)} references by http:// that browsers block: {active[0].url[:50]}")
    elif passive:
        finding.fact(file=passive[0].where)
        finding.warn(f"{len(passive)} images or media by http://: {passive[0].url[:50]}")
