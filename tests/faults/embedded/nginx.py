"""nginx and its certificates on the embedded demo: what it serves, what it passes on, and what it would load."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import psutil

from tests.beds.edge import Authority, Edge
from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave, behave
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

API = "location /api/ {"
ROOT = "root "
SLOW = """
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, ...more) {
  if (event !== 'request' || /demo-health/.test(request.headers['user-agent']))
    return emit.apply(this, arguments);
  setTimeout(() => emit.apply(this, [event, request, ...more]), 400);
  return true;
};
"""
"""Lets every request wait for less than half a second, save the runtime's own."""
AUTHORITY = Authority("Test authority")
INTERMEDIATE = Authority("Test intermediate", signed_by=AUTHORITY)

BEHIND_NGINX = (
    "network.backend[edge]",
    "service.health-endpoint[edge]",
    "api.response-time[edge]",
    "network.cors-*",
    "auth.login-through-nginx",
    "api.error-rate",
    "deploy.upstream-errors",
    "service.log-errors[nginx]",
)
"""What users lose when nginx does not find the backend that is well."""
BEFORE_NGINX = (*BEHIND_NGINX, "service.app-loads[edge]", "tls.*")
"""What they lose when nginx itself is not to be had."""


@fault(
    root=["network.nginx-upstream[127.0.0.1:9]"],
    follows=["network.backend[edge]"],
    may=BEHIND_NGINX,
    shows=["127.0.0.1:9", "connection refused"],
    looks=["server 127.0.0.1:9;"],
    mend=steps(1),
)
def upstream_with_a_wrong_port(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """nginx asks a port at which nobody listens any more, and the backend is well at its own."""
    edge.change((f"server 127.0.0.1:{demo.port('backend')};", "server 127.0.0.1:9;"))
    yield edge.put_back


@fault(
    root=["network.nginx-config"],
    shows=['unknown directive "server_tokns"', "nginx.conf:"],
    looks=['unknown directive "server_tokns"'],
    mend=steps(0),
)
def configuration_broken_on_disk(edge: Edge) -> Iterator[Hand]:
    """A line of the configuration was mistyped; nginx runs on with what it loaded before."""
    edge.change(("server_tokens off;", "server_tokns off;"), load=False)
    yield edge.put_back


@fault(
    root=["network.nginx-config"],
    follows=["service.running[nginx]", "network.backend[edge]"],
    may=(*BEFORE_NGINX, "*[nginx]", "network.nginx-*", "network.service-link[nginx*"),
    shows=['unknown directive "server_tokns"'],
    looks=['unknown directive "server_tokns"'],
    mend=steps(0),
)
def configuration_broken_and_restarted(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """The same, found out by a restart: nginx does not come up any more."""
    edge.change(("server_tokens off;", "server_tokns off;"), load=False)
    demo.run("restart", "nginx")
    demo.wait_until(lambda: demo.service("nginx")["status"] != "running", what="nginx to give up")
    yield edge.put_back


@fault(
    root=["network.nginx-config"],
    may=["network.nginx-upstream[backend.invalid*"],
    shows=["backend.invalid"],
    looks=["no such name"],
    mend=steps(0, 1),
)
def configuration_with_an_unknown_name(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """Somebody wrote the name of a container that does not exist into nginx' upstream, and did not reload."""
    port = demo.port("backend")
    edge.change((f"server 127.0.0.1:{port};", f"server backend.invalid:{port};"), load=False)
    yield edge.put_back


@fault(
    root=["network.backend[edge]"],
    follows=["service.health-endpoint[edge]"],
    may=BEHIND_NGINX,
    shows=["answers with the page"],
    looks=["location /apx/"],
    mend=steps(0),
)
def api_location_lost(edge: Edge) -> Iterator[Hand]:
    """The API's location was renamed: users' calls get the page, with HTTP 200."""
    edge.change((API, "location /apx/ {"), ("location /api/auth/ {", "location /apx/auth/ {"))
    yield edge.put_back


@fault(
    root=["network.backend[edge]"],
    follows=["service.app-loads[edge]", "service.health-endpoint[edge]", "network.cors-*"],
    may=(*BEHIND_NGINX, "tls.mixed-content[edge]"),
    shows=["HTTP 503 by nginx itself"],
    looks=["return 503"],
    mend=steps(0),
)
def maintenance_page_left_on(edge: Edge) -> Iterator[Hand]:
    """Somebody closed the site for a release, and nobody opened it again."""
    edge.change((ROOT, f'return 503 "We are back soon."; {ROOT}'))
    yield edge.put_back


@fault(
    root=["network.backend[edge]"],
    follows=["service.app-loads[edge]", "service.health-endpoint[edge]", "network.cors-preflight[*]"],
    may=(*BEHIND_NGINX, "tls.mixed-content[edge]"),
    shows=["HTTP 401 by nginx itself"],
    looks=["auth_basic"],
    mend=steps(0),
)
def password_left_on(edge: Edge) -> Iterator[Hand]:
    """The configuration of the staging site was installed, with its password."""
    passwords = edge.folder / "passwords"
    passwords.write_text("staging:{PLAIN}staging\n", "utf-8")
    passwords.chmod(0o644)
    edge.change((ROOT, f'auth_basic "staging"; auth_basic_user_file {passwords}; {ROOT}'))
    yield edge.put_back


@fault(
    root=["network.backend[edge]"],
    follows=["service.health-endpoint[edge]", "network.cors-preflight[*]"],
    may=BEHIND_NGINX,
    shows=["HTTP 403 by nginx itself"],
    looks=["deny all"],
    mend=steps(0),
)
def everybody_shut_out(edge: Edge) -> Iterator[Hand]:
    """The API is kept for an office's own addresses, which are no user's."""
    edge.change((API, f"{API} allow 10.99.0.0/16; deny all;"))
    yield edge.put_back


@fault(
    root=["network.backend[edge]"],
    follows=["service.health-endpoint[edge]"],
    may=BEHIND_NGINX,
    shows=["nginx gave up after"],
    looks=["proxy_read_timeout 100ms"],
    mend=steps(0),
)
def nginx_out_of_patience(demo: Demo, edge: Edge, misbehave: Misbehave) -> Iterator[Hand]:
    """nginx was told to wait a tenth of a second, and answers take longer than that."""
    misbehave(SLOW)
    edge.change(("proxy_read_timeout 60s;", "proxy_read_timeout 100ms;"))
    yield edge.put_back
    behave(demo)


@fault(
    root=["network.nginx-connections"],
    may=BEFORE_NGINX,
    shows=["6 worker_connections are not enough"],
    looks=["worker_connections 6;"],
    mend=steps(0),
)
def nginx_out_of_connections(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """A few clients hold their connections open, and nginx may have no more than that."""
    edge.change(("worker_connections 512;", "worker_connections 6;"), ("worker_processes 2;", "worker_processes 1;"))
    port = demo.port("nginx", 443)
    with ExitStack() as held:
        for _ in range(6):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 3))
        yield edge.put_back


@fault(
    root=["tls.handshake[localhost]"],
    follows=["tls.trust"],
    may=BEFORE_NGINX,
    shows=["plain HTTP"],
    looks=["listen"],
    mend=steps(0),
)
def plain_http_on_443(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """The `listen` of the TLS server lost its `ssl`."""
    port = demo.port("nginx", 443)
    edge.change((f"listen 127.0.0.1:{port} ssl;", f"listen 127.0.0.1:{port};"))
    yield edge.put_back


@fault(
    root=["tls.http-redirect"],
    shows=["HTTP 200", "expected a redirect"],
    looks=["HTTP/1.1 200"],
    mend=steps(0),
)
def served_in_the_clear(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """Port 80 serves, where it ought to send browsers to HTTPS."""
    edge.change((f"return 301 https://$host:{demo.port('nginx', 443)}$request_uri;", 'return 200 "the page";'))
    yield edge.put_back


# One certificate is served for both names: what is wrong with it is told once.
untrusted = partial(fault, root=["tls.trust[localhost]"], follows=["tls.trust[app.allodoc.test]"], mend=steps(0))
out_of_date = partial(fault, root=["tls.expiry[localhost]"], follows=["tls.expiry[app.allodoc.test]"], mend=steps(0))


@untrusted(shows=["self-signed"], looks=["issuer=CN = localhost"])
def certificate_self_signed(edge: Edge) -> Iterator[Hand]:
    """A certificate that was made on the spot, and that no browser trusts."""
    edge.install(*AUTHORITY.issue(self_signed=True))
    yield lambda: edge.install(*AUTHORITY.issue(), authority=AUTHORITY.pem, load=False)


@untrusted(shows=["Test intermediate was not sent"], looks=["Test intermediate"])
def chain_incomplete(edge: Edge) -> Iterator[Hand]:
    """The server's own certificate was installed without its intermediate."""
    certificate, key = INTERMEDIATE.issue()
    edge.install(certificate, key, authority=AUTHORITY.pem)
    yield lambda: edge.install(certificate + INTERMEDIATE.pem, load=False)


@fault(
    root=["tls.trust[app.allodoc.test]"],
    shows=["not for app.allodoc.test"],
    looks=["DNS:localhost"],
    mend=steps(0),
)
def certificate_for_another_name(edge: Edge) -> Iterator[Hand]:
    """A trusted certificate that lacks the name that users type."""
    edge.install(*AUTHORITY.issue(("localhost", "127.0.0.1")), authority=AUTHORITY.pem)
    yield lambda: edge.install(*AUTHORITY.issue(), load=False)


@out_of_date(shows=["expired 2 d ago"], looks=["notAfter="])
def certificate_expired(edge: Edge) -> Iterator[Hand]:
    """The renewal has failed for months, and nobody noticed."""
    edge.install(*AUTHORITY.issue(begins=-300, lasts=-2), authority=AUTHORITY.pem)
    yield lambda: edge.install(*AUTHORITY.issue(), load=False)


@out_of_date(shows=["not valid yet"], looks=["notBefore="])
def certificate_not_valid_yet(edge: Edge) -> Iterator[Hand]:
    """A certificate from a machine whose clock runs two days ahead."""
    edge.install(*AUTHORITY.issue(begins=2), authority=AUTHORITY.pem)
    yield lambda: edge.install(*AUTHORITY.issue(), load=False)


@out_of_date(shows=["a reload is all that is missing"])
def certificate_renewed_and_not_loaded(edge: Edge) -> Iterator[None]:
    """The old certificate ran out, the new one lies on disk: nginx was not told."""
    edge.install(*AUTHORITY.issue(begins=-300, lasts=-1), authority=AUTHORITY.pem)
    edge.install(*AUTHORITY.issue(), load=False)
    yield


@fault(root=["network.nginx-config"], shows=["key values mismatch"], looks=["key values mismatch"], mend=steps(0))
def key_of_another_certificate(edge: Edge) -> Iterator[Hand]:
    """The new certificate was copied without its key; what is served is still the old pair."""
    old = (edge.tls / "server.pem").read_bytes()
    edge.install(AUTHORITY.issue()[0], load=False)
    yield lambda: edge.install(old, load=False)


@fault(
    root=["tls.mixed-content[edge]"],
    shows=["http://cdn.allodoc.test"],
    looks=["http://cdn.allodoc.test"],
    mend=steps(1),
)
def page_with_a_script_by_http(edge: Edge) -> Iterator[Hand]:
    """The page loads a script by http://, which browsers block."""
    edge.page(index='…<script src="http://cdn.allodoc.test/analytics.js"></script>')
    policy = 'add_header Content-Security-Policy "upgrade-insecure-requests" always; '
    yield lambda: edge.change(("add_header X-Frame-Options", f"{policy}add_header X-Frame-Options"), load=False)


@fault(
    root=["network.cors-foreign-origin"],
    shows=["any origin is allowed", "with credentials"],
    looks=["$http_origin"],
    mend=steps(0, 1),
)
def any_origin_reflected(edge: Edge) -> Iterator[Hand]:
    """nginx allows whatever origin asks, with credentials."""
    header = "Access-Control-Allow-Origin"
    edge.change((API, f"{API} proxy_hide_header {header}; add_header {header} $http_origin always;"))
    yield edge.put_back


@fault(
    root=["network.cors-preflight[*]"],
    shows=["headers not allowed: content-type"],
    looks=["Access-Control-Allow-Headers: X-Requested-With"],
    mend=steps(0),
)
def preflight_without_the_pages_headers(edge: Edge) -> Iterator[Hand]:
    """nginx answers for the backend which headers are allowed, with a list of long ago."""
    header = "Access-Control-Allow-Headers"
    edge.change((API, f'{API} proxy_hide_header {header}; add_header {header} "X-Requested-With" always;'))
    yield edge.put_back


@fault(root=["network.cors-preflight[*]"], shows=["HTTP 405 for the preflight"], looks=["return 405"], mend=steps(0, 1))
def preflight_turned_away(edge: Edge) -> Iterator[Hand]:
    """nginx lets no OPTIONS through, for safety's sake."""
    edge.change((API, f"{API} if ($request_method = OPTIONS) {{ return 405; }}"))
    yield edge.put_back


@fault(
    root=["tls.handshake[localhost]"],
    follows=["tls.handshake[app.allodoc.test]", "network.backend[edge]"],
    may=BEFORE_NGINX,
    shows=["no TLS handshake within"],
    mend=steps(0),
)
def workers_frozen(demo: Demo) -> Iterator[Hand]:
    """nginx' master runs and its workers hang: connections are taken, and nothing comes."""
    workers = psutil.Process(demo.pid("nginx")).children()

    def wake() -> None:
        for worker in workers:
            if worker.is_running():
                os.kill(worker.pid, signal.SIGCONT)

    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield wake
    finally:
        wake()


@fault(warns=["tls.handshake[localhost]"], shows=["TLS 1.1 is still accepted"], looks=["TLSv1.1"], mend=steps(0))
def old_versions_of_tls(edge: Edge) -> Iterator[Hand]:
    """Somebody allowed TLS 1.1 again, for an old device."""
    old = "ssl_protocols TLSv1.1 TLSv1.2 TLSv1.3; ssl_ciphers ALL:@SECLEVEL=0;"
    edge.change(("ssl_protocols TLSv1.2 TLSv1.3;", old))
    yield edge.put_back


@fault(warns=["tls.http-redirect"], shows=["no Strict-Transport-Security"], looks=["X-Was-Strict"], mend=steps(0))
def browsers_not_told_to_stay_with_tls(edge: Edge) -> Iterator[Hand]:
    """The site says nothing of Strict-Transport-Security any more."""
    edge.change(("add_header Strict-Transport-Security", "add_header X-Was-Strict-Transport-Security"))
    yield edge.put_back


@fault(
    root=["tls.trust"],
    may=["tls.*"],
    limits='[services.nginx]\nca_file = "/nowhere/ca.pem"\n',
    shows=["/nowhere/ca.pem"],
    looks=["it is not there"],
    mend=Exempt("the target's file is to be corrected"),
)
def authority_file_gone(demo: Demo) -> Iterator[None]:
    """The target's file names an authority that was moved."""
    assert demo.ca_file.exists()
    yield


@fault(warns=["network.nginx-config"], shows=["duplicate MIME type"], looks=["duplicate MIME type"], mend=steps(0))
def configuration_that_nginx_warns_of(edge: Edge) -> Iterator[Hand]:
    """The configuration loads, and a line of it says something twice."""
    edge.change(("gzip_types text/css", "gzip_types text/html text/css"))
    yield edge.put_back


@fault(warns=["network.nginx-loaded"], looks=["nginx.conf"], mend=steps(0))
def configuration_changed_and_not_loaded(edge: Edge) -> Iterator[None]:
    """A good line was written, and nginx was not told."""
    edge.change(("server_tokens off;", "server_tokens  off;"), load=False)
    yield


@fault(warns=["tls.served-is-installed[localhost]"], looks=["ssl_certificate"], mend=steps(0))
def certificate_replaced_and_not_loaded(edge: Edge) -> Iterator[None]:
    """The certificate was renewed in time, and nginx was not told: the old one lasts for a while."""
    edge.install(*AUTHORITY.issue(), authority=(edge.tls / "ca.pem").read_bytes() + AUTHORITY.pem, load=False)
    yield


@fault(
    root=["auth.login-through-nginx"],
    may=["network.cors-preflight[*]"],
    shows=["HTTP 413 for the login through nginx", "the backend itself lets the account in"],
    looks=["client_max_body_size 20"],
    mend=steps(0),
)
def bodies_too_large_for_nginx(edge: Edge) -> Iterator[Hand]:
    """A limit for uploads was set for the whole API, in bytes instead of megabytes: what is asked with GET works."""
    edge.change((API, f"{API} client_max_body_size 20;"))
    yield edge.put_back


@fault(
    root=["auth.login-through-nginx"],
    shows=["HTTP 401 through nginx with a token that the backend itself takes"],
    looks=['proxy_set_header Authorization ""'],
    mend=steps(0),
)
def nginx_keeps_the_token_for_itself(edge: Edge) -> Iterator[Hand]:
    """Basic authentication was tried for a day, and what stayed of it takes every token away."""
    dropped = 'proxy_set_header Authorization "";'
    edge.change((API, f"{API} {dropped}"))
    yield edge.put_back
