"""Users can't access the application: the page, and what it loads."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity
from allodoc_health.symptom import symptom
from fixtures.page import Page

CAUSES = (
    "service.app-loads[frontend]",
    "service.running[nginx]",
    "service.running[frontend]",
    "service.stays-up[nginx]",
    "service.stays-up[frontend]",
    "service.restart-loop[nginx]",
    "service.restart-loop[frontend]",
    "service.exit-code[nginx]",
    "service.exit-code[frontend]",
    "service.port-conflict",
    "service.oom-killed[nginx]",
    "service.oom-killed[frontend]",
    "network.nginx-config",
    "network.nginx-connections",
    "network.nginx-upstream",
    "network.service-link[nginx-to-frontend]",
    "tls.handshake",
    "host.docker",
)


@symptom("service.app-loads", severity=Severity.CRITICAL, smoke=True, caused_by=[*CAUSES, "network.backend[edge]"])
def test_the_application_loads(loaded_page: Page, finding: Recorder) -> None:
    """The page that users open is the application, and its scripts and styles load."""
    exchange = loaded_page.exchange
    finding.fact(url=exchange.url.partition("?")[0], address=exchange.address)
    for asset in loaded_page.broken:
        finding.note(f"{asset.name}: {asset.fault}")
    if loaded_page.foreign or loaded_page.unread:
        finding.note(f"not asked for: {loaded_page.foreign} from other sites, {loaded_page.unread} more of its own")
    # What nginx answers to everything is told where the API is asked.
    finding.follows_only_from(*CAUSES, *(["network.backend[edge]"] if loaded_page.api_too else []))
    if exchange.problem:
        finding.fail(f"{exchange.address}: {exchange.message}", variant="unreachable")
    elif loaded_page.api_too:
        finding.fail(f"HTTP {exchange.status} for the page, as for the API: nginx answers it itself", "refused")
    elif exchange.location and not exchange.ok:
        finding.fail(
            f"HTTP {exchange.status} to {exchange.location[:60]}, which is not this site", variant="unreachable"
        )
    elif exchange.status in (502, 503, 504):
        finding.fail(f"HTTP {exchange.status}: nginx gets no page from the service behind it", variant="unreachable")
    elif exchange.status != 200:
        finding.fail(f"HTTP {exchange.status} for the page, expected 200")
    elif loaded_page.welcome:
        finding.fail("the web server's own first page came, not the application", variant="welcome")
    elif exchange.kind != "text/html":
        finding.fail(f"the page has the type {exchange.kind or 'none'}, expected text/html")
    elif not loaded_page.root and not loaded_page.assets:
        finding.fail("a white page: no application root and no script in it")
    elif loaded_page.broken:
        first = loaded_page.broken[0]
        count = f"{len(loaded_page.broken)} of {len(loaded_page.assets)} bundles"
        finding.fail(f"{count} can't be used: {first.name[:24]}: {first.fault[:40]}", variant="bundle")
    elif not loaded_page.root or not loaded_page.assets:
        missing = "script" if loaded_page.root else "application root"
        finding.warn(f"the page has no {missing}: is it the application?")
    else:
        finding.says(f"{loaded_page.root} and {len(loaded_page.assets)} scripts and styles load")
