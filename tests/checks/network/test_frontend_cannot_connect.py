"""Lost requests, CORS and nginx, broken for real: each fault seen, the root cause right, and mended by the remedy."""

from __future__ import annotations

import pytest

from tests.beds.edge import Edge
from tests.beds.embedded import Demo
from tests.beds.suite import Health as Suite

CHAPTER = "checks/network"
ALL = ("checks/service", "checks/db", CHAPTER)
NGINX = "checks/network/test_frontend_cannot_connect.py"
API = "location /api/ {"


def with_origins(demo: Demo, *origins: str) -> str:
    """A target file that says from where pages may come, whatever the backend was told."""
    return f"origins = {list(origins)}\n{demo.target}"


class TestHealthy:
    """Nothing broken."""

    def test_demo_is_calm(self, demo: Demo, suite: Suite) -> None:
        """Every check of the chapter passes on the demo, or is not applicable with a reason."""
        run = suite(*ALL, target=demo.target)
        run.is_calm()
        own = {name for name in run.names() if name.startswith(("network.", "tls."))}
        assert not own & run.names("warn"), run.output
        assert own & run.names("not-applicable") == {"network.dns"}


class TestBackend:
    """network.backend"""

    def test_stopped(self, demo: Demo, suite: Suite) -> None:
        """A stopped backend is the one root cause; both ways, the upstream, the link and CORS follow from it."""
        demo.stop("backend")
        run = suite(*ALL, target=demo.target)
        run.blames("service.running[backend]")
        assert "refused" in run.finding("network.backend[direct]")["message"]
        assert "behind nginx" in run.finding("network.backend[edge]")["message"]
        red = run.names("fail")
        assert {"network.service-link[nginx-to-backend]", "network.cors-foreign-origin"} <= red, run.output
        consequences = ("network.backend[direct]", "network.backend[edge]", "network.cors-foreign-origin")
        for name in (*consequences, "network.service-link[nginx-to-backend]", "deploy.upstream-errors"):
            if name in red:
                run.do(name, "look")
        for name in (
            "network.service-link[nginx-to-backend]",
            f"network.nginx-upstream[127.0.0.1:{demo.port('backend')}]",
        ):
            run.do(name, steps=[0])
        run.do("network.backend[direct]")
        demo.wait_healthy()
        suite(*ALL, target=demo.target).is_calm()

    def test_frozen(self, demo: Demo, suite: Suite) -> None:
        """A paused backend takes connections and is silent, on both ways."""
        demo.pause("backend")
        run = suite(CHAPTER, "checks/service", target=demo.target)
        run.blames("service.running[backend]")
        assert "no answer" in run.finding("network.backend[direct]")["message"]
        run.do("network.backend[direct]", "look")
        run.do("network.backend[direct]")
        demo.wait_healthy()

    def test_nginx_stopped(self, demo: Demo, suite: Suite) -> None:
        """A stopped nginx loses requests before it; the direct way is well."""
        demo.stop("nginx")
        run = suite(*ALL, target=demo.target)
        run.blames("service.running[nginx]")
        assert run.outcome("network.backend[direct]") == "pass"
        assert "before nginx" in run.finding("network.backend[edge]")["message"]
        for name in ("network.backend[edge]", "tls.handshake[localhost]"):
            run.do(name, "look")
            run.do(name)
        demo.wait_healthy()
        suite(CHAPTER, target=demo.target).is_calm()

    def test_limited(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """503 by nginx' own limit is a warning, with its reason: the backend was not asked, and need not be ill."""
        edge.change(("zone=api:1m rate=10r/s", "zone=api:1m rate=1r/m"), ("zone=api burst=20 nodelay", "zone=api"))
        run = suite(NGINX, "-k", "the_backend_answers", target=demo.target)
        run.warns("network.backend[edge]")
        assert "too many requests" in run.finding("network.backend[edge]")["message"]

    def test_closed(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """503 that nginx was told to answer is none: it is named, and so is what it does to the API alone."""
        edge.change((API, f"{API} return 503;"))
        run = suite(CHAPTER, "checks/service", target=demo.target)
        run.blames("network.backend[edge]")
        assert run.finding("network.backend[edge]")["message"].startswith("HTTP 503 by nginx itself")
        assert run.outcome("service.app-loads[edge]") == "pass"


class TestServiceLink:
    """network.service-link"""

    def test_wrong_name(self, demo: Demo, suite: Suite) -> None:
        """A Redis by a name that does not resolve from the backend."""
        demo.set_env("backend", REDIS_HOST="redis.invalid", REDIS_CONNECT_TIMEOUT="1")
        demo.run("recreate", "backend")
        run = suite(CHAPTER, "-k", "backend-to-redis or backend-to-postgres", target=demo.target)
        if run.outcome("network.service-link[backend-to-redis]") == "blocked":
            pytest.skip("the backend does not run without its Redis, so nothing can be looked at from inside it")
        assert "does not resolve" in run.finding("network.service-link[backend-to-redis]")["message"]
        run.blames("network.service-link[backend-to-redis]")

    def test_same_as_the_databases_own(self, demo: Demo, suite: Suite) -> None:
        """A stopped PostgreSQL is told once: the link follows from the database's own checks."""
        demo.stop("postgres")
        run = suite(*ALL, target=demo.target)
        run.blames("service.running[postgres]")
        assert run.outcome("network.service-link[backend-to-postgres]") == "fail", run.output


class TestCors:
    """network.cors-preflight, network.cors-foreign-origin, network.cors-config"""

    def test_wrong_origin(self, demo: Demo, suite: Suite) -> None:
        """A backend told another origin than the page's: the setting is to blame, and browsers refuse the page."""
        page = demo.environment("backend")["CORS_ORIGIN"]
        demo.set_env("backend", CORS_ORIGIN="https://old.allodoc.test")
        demo.recreate("backend")
        demo.wait_healthy("backend")
        run = suite(CHAPTER, target=with_origins(demo, page))
        run.blames("network.cors-config")
        refused = run.finding(f"network.cors-preflight[{page}]")
        assert "https://old.allodoc.test is allowed" in refused["message"], run.output
        demo.set_env("backend", CORS_ORIGIN=page)
        run.do("network.cors-config", steps=[0])
        demo.wait_healthy("backend")
        suite(CHAPTER, target=demo.target).is_calm()

    def test_reflected(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """An nginx that allows whoever asks, with credentials, is a breach: the manager is called."""
        said = (
            "proxy_hide_header Access-Control-Allow-Origin; add_header Access-Control-Allow-Origin $http_origin always;"
        )
        edge.change((API, f"{API} {said}"))
        run = suite(CHAPTER, target=demo.target)
        run.blames("network.cors-foreign-origin")
        assert run.snapshot["verdict"]["escalation"] == "now: call the manager"
        edge.put_back()
        run.do("network.cors-foreign-origin", steps=[0])
        demo.wait_until(lambda: suite(NGINX, target=demo.target).exit_status == 0, what="nobody but the page")

    @pytest.mark.parametrize(
        ("header", "value", "words"),
        [
            ("Access-Control-Allow-Methods", "GET", "POST is not allowed"),
            ("Access-Control-Allow-Credentials", "false", "credentials"),
        ],
    )
    def test_too_little(self, header: str, value: str, words: str, demo: Demo, edge: Edge, suite: Suite) -> None:
        """The origin is right, but not what the page sends."""
        edge.change((API, f'{API} proxy_hide_header {header}; add_header {header} "{value}" always;'))
        run = suite(CHAPTER, "-k", "cors or log_in or foreign", target=demo.target)
        name = next(name for name in run.names("fail"))
        run.blames(name)
        assert name.startswith("network.cors-preflight")
        assert words in run.finding(name)["message"]


class TestUpstream:
    """network.nginx-upstream"""

    def test_one_of_two(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """One of several servers down warns: the others carry on."""
        own = f"server 127.0.0.1:{demo.port('backend')};"
        edge.change((own, f"{own} server 127.0.0.1:9;"))
        run = suite(CHAPTER, target=demo.target)
        run.warns("network.nginx-upstream[127.0.0.1:9]")
        assert "1 others" in run.finding("network.nginx-upstream[127.0.0.1:9]")["message"]


class TestNames:
    """network.dns"""

    def test_no_such_name(self, demo: Demo, suite: Suite) -> None:
        """A name that the target's file gives, and that nobody knows."""
        target = f'{demo.target}[services.nginx]\nurl = "https://app.allodoc.invalid:{demo.port("nginx", 443)}"\n'
        run = suite(CHAPTER, "-k", "resolves", target=target)
        run.blames("network.dns[app.allodoc.invalid]")
        assert run.finding("network.dns")["remedy"].endswith("#the-public-name-does-not-resolve")
        run.do("network.dns[app.allodoc.invalid]", "look")


def test_each_remedy_renders(demo: Demo, suite: Suite) -> None:
    """Every remedy of the chapter can be printed for a target, in all its variants."""
    names = ["backend", "service-link", "cors-preflight", "cors-foreign-origin", "cors-config", "nginx-config"]
    names += ["nginx-loaded", "nginx-connections", "nginx-upstream", "dns"]
    ids = [f"network.{name}" for name in names]
    ids += [f"tls.{name}" for name in ("handshake", "trust", "expiry", "served-is-installed", "http-redirect")]
    run = suite(*(word for name in [*ids, "tls.mixed-content"] for word in ("--explain", name)), target=demo.target)
    assert run.exit_status == 0, run.output
    assert "the guide has no remedy" not in run.output
    assert "{{" not in run.output
