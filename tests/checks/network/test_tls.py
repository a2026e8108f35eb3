"""Certificates, handshakes and plain doors: real ones, made wrong in each way, served by the demo's nginx."""

from __future__ import annotations

import pytest

from tests.beds.edge import Authority, Edge
from tests.beds.embedded import Demo
from tests.beds.suite import Health as Suite

CHAPTER = "checks/network"
TLS = "checks/network/test_tls.py"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """An authority of the tests' own."""
    return Authority("Test authority")


class TestTrust:
    """tls.trust"""

    def test_unknown_authority(self, demo: Demo, edge: Edge, suite: Suite, authority: Authority) -> None:
        """One signed by an authority that is sent along, and that nobody knows."""
        certificate, key = authority.issue()
        edge.install(certificate + authority.pem, key)
        run = suite(TLS, target=demo.target)
        run.blames("tls.trust[localhost]")
        assert run.finding("tls.trust[app.allodoc.test]")["caused_by"] == ["tls.trust[localhost]"], (
            "it is one certificate"
        )
        assert "Test authority, which is trusted by no browser" in run.finding("tls.trust[localhost]")["message"]

    def test_wrong_name(self, demo: Demo, edge: Edge, suite: Suite, authority: Authority) -> None:
        """A trusted certificate for another name; a wildcard stands for one label and no more."""
        certificate, key = authority.issue(("localhost", "*.app.allodoc.test", "*.test"))
        edge.install(certificate, key, authority=authority.pem)
        run = suite(TLS, target=demo.target)
        run.blames("tls.trust[app.allodoc.test]")
        found = run.finding("tls.trust[app.allodoc.test]")
        assert "not for app.allodoc.test" in found["message"]
        assert found["remedy"].endswith("#the-certificate-is-for-another-name")

    def test_outside_production(self, demo: Demo, edge: Edge, suite: Suite, authority: Authority) -> None:
        """Without an authority of its own, names that nobody outside can come by only warn."""
        edge.install(*authority.issue(self_signed=True))
        (edge.tls / "ca.pem").unlink()
        run = suite(TLS, target=demo.target)
        run.warns("tls.trust[localhost]")

    def test_public_name(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """The same under a name that the target's file says users type: a failure."""
        (edge.tls / "ca.pem").unlink()
        target = f'{demo.target}[services.nginx]\nurl = "https://app.allodoc.com:{demo.port("nginx", 443)}"\n'
        run = suite(TLS, "-k", "trust", target=target)
        assert run.outcome("tls.trust[localhost]") == "warn"
        assert run.outcome("tls.trust[app.allodoc.com]") == "fail"


class TestExpiry:
    """tls.expiry"""

    @pytest.mark.parametrize(
        ("begins", "lasts", "outcome", "words"),
        [
            (-300, 20, "warn", "warn below 30 d"),
            (-300, 3, "fail", "fail below 7 d"),
        ],
        ids=["soon", "very-soon"],
    )
    def test_dates(
        self,
        begins: float,
        lasts: float,
        outcome: str,
        words: str,
        demo: Demo,
        edge: Edge,
        suite: Suite,
        authority: Authority,
    ) -> None:
        """Certificates made for it: each way to be out of date, and trust is not doubted for that."""
        certificate, key = authority.issue(begins=begins, lasts=lasts)
        edge.install(certificate, key, authority=authority.pem)
        run = suite(TLS, target=demo.target)
        if outcome == "fail":
            run.blames("tls.expiry[localhost]")
            assert run.outcome("tls.expiry[app.allodoc.test]") == "fail"
        else:
            run.warns("tls.expiry[localhost]")
        assert words in run.finding("tls.expiry[localhost]")["message"], run.output
        assert run.outcome("tls.trust[localhost]") == "pass"


class TestInstalled:
    """tls.served-is-installed"""

    def test_junk(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """A file that is no certificate: nginx would not load it, and what is served is another one."""
        edge.install(b"\x00\x01 no certificate \xff", load=False)
        run = suite(CHAPTER, target=demo.target)
        run.blames("network.nginx-config")
        assert run.finding("network.nginx-config")["remedy"].endswith("#nginx-cant-load-its-certificate")
        assert run.outcome("tls.served-is-installed[localhost]") == "warn"


class TestPlainDoor:
    """tls.http-redirect"""

    def test_redirect_to_a_name_that_does_not_resolve(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """A redirect to a public name is right, and never followed."""
        port = demo.port("nginx", 443)
        edge.change((f"return 301 https://$host:{port}$request_uri;", "return 301 https://app.invalid$request_uri;"))
        assert suite(TLS, target=demo.target).outcome("tls.http-redirect") == "pass"


class TestMixedContent:
    """tls.mixed-content"""

    def test_passive(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """An image in the stylesheet only warns; a link in the page is nothing."""
        edge.page(
            styles="… .logo { background: url(http://img.allodoc.test/logo.png) }", index='…<a href="http://x.test">'
        )
        run = suite(TLS, target=demo.target)
        run.warns("tls.mixed-content[edge]")

    def test_in_a_script(self, demo: Demo, edge: Edge, suite: Suite) -> None:
        """An API that a bundle asks for by http://; name spaces and a developer's machine are nothing."""
        harmless = 'const ns="http://www.w3.org/2000/svg", dev="http://localhost:3000/api";'
        edge.page(main=f"…;{harmless}")
        assert suite(TLS, target=demo.target).outcome("tls.mixed-content") == "pass"
        edge.put_back()
        edge.page(main=f'…;{harmless} const api="http://api.allodoc.test/api/v1";')
        run = suite(TLS, target=demo.target)
        run.blames("tls.mixed-content[edge]")
