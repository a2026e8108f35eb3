"""The demo's nginx to break: its configuration and its certificates, put back after the test."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.beds.embedded import Demo

DAY = datetime.timedelta(days=1)
NAMES = ("localhost", "app.allodoc.test", "127.0.0.1")


class Authority:
    """One that signs certificates, for a day of its own choosing."""

    def __init__(self, name: str, signed_by: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.signed_by = signed_by or self
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            _builder(self.name, self.signed_by.name, self.key.public_key(), now - 400 * DAY, now + 4000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_signs(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.signed_by.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, names: Sequence[str] = NAMES, begins: float = -1, lasts: float = 300, self_signed: bool = False
    ) -> tuple[bytes, bytes]:
        """Certificate and key for names; it begins ``begins`` days from now and ends ``lasts`` days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = datetime.datetime.now(datetime.UTC)
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        builder = _builder(
            subject, subject if self_signed else self.name, key.public_key(), now + begins * DAY, now + lasts * DAY
        )
        made = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(key if self_signed else self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return made.public_bytes(serialization.Encoding.PEM), private


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)


def _signs() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


class Edge:
    """The demo's nginx: its files changed in place, loaded when the test says so."""

    def __init__(self, demo: Demo, kept: Path) -> None:
        self.demo = demo
        self.folder = demo.folder.service("nginx")
        self.configuration = self.folder / "nginx.conf"
        self.tls = self.folder / "tls"
        self._kept = kept
        self._text = self.configuration.read_text("utf-8")
        shutil.copytree(self.tls, kept / "tls")

    def change(self, *replacements: tuple[str, str], load: bool = True) -> None:
        """Replace parts of the configuration as it is on disk, and have nginx load it.

        Otherwise it stays as it was, and is older by then than the file: ages are told in whole seconds.
        """
        if not load:
            self.demo.wait_until(lambda: self._youngest() > 4, what="workers of some age")
        text = self.configuration.read_text("utf-8")
        for old, new in replacements:
            assert old in text, f"{old!r} does not stand in the configuration"
            text = text.replace(old, new)
        self.configuration.write_text(text, "utf-8")
        if load:
            self.reload()

    def install(self, certificate: bytes, key: bytes | None = None, authority: bytes = b"", load: bool = True) -> None:
        """Put another certificate in place, and another authority that the target trusts."""
        (self.tls / "server.pem").write_bytes(certificate)
        if key is not None:
            (self.tls / "server.key").write_bytes(key)
        if authority:
            (self.tls / "ca.pem").write_bytes(authority)
        if load:
            self.reload()

    def put_back(self) -> None:
        """The configuration as it was, on disk alone."""
        self.configuration.write_text(self._text, "utf-8")

    def page(self, **files: str) -> Path:
        """A copy of the page's files, with some changed, that nginx serves from now on."""
        # The services' account has to reach it, so not below pytest's own folder.
        folder = self.folder / "page"
        shutil.rmtree(folder, ignore_errors=True)
        served = re.findall(r"root (.+);", self._text)
        shutil.copytree(served[0], folder)
        for name, text in files.items():
            path = next(path for path in folder.iterdir() if path.name.startswith(name))
            path.write_text(text.replace("…", path.read_text("utf-8")), "utf-8")
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        if f"root {folder};" not in self.configuration.read_text("utf-8"):
            self.change((f"root {served[0]};", f"root {folder};"))
        return folder

    def reload(self) -> None:
        """Have nginx load what is on disk, and wait until only workers that did so serve."""
        before = self.workers()
        self.demo.must("exec", "nginx", "--", "nginx", "-s", "reload")
        self.wait_for_other_workers(before)

    def wait_for_other_workers(self, before: set[int]) -> None:
        """Wait until none of these workers serves any more, and others do."""
        self.demo.wait_until(
            lambda: self.workers() and not self.workers() & before, what="workers of a new configuration"
        )

    def workers(self) -> set[int]:
        """The processes that serve now."""
        return {child.pid for child in psutil.Process(self.demo.pid("nginx")).children()}

    def _youngest(self) -> float:
        return min((time.time() - psutil.Process(pid).create_time() for pid in self.workers()), default=0.0)

    def restore(self) -> None:
        """Everything as it was, and loaded."""
        now = self.configuration.read_text("utf-8") + "".join(sorted(_contents(self.tls)))
        if now == self._text + "".join(sorted(_contents(self._kept / "tls"))):
            return
        self.put_back()
        for path in (self._kept / "tls").iterdir():
            target = self.tls / path.name
            target.write_bytes(path.read_bytes())
            os.utime(target, (path.stat().st_atime, path.stat().st_mtime))
        shutil.rmtree(self.folder / "page", ignore_errors=True)
        if self.demo.service("nginx")["status"] == "running":
            self.reload()


def _contents(folder: Path) -> Iterator[str]:
    for path in folder.iterdir():
        yield path.name + path.read_text("utf-8", "replace")


@pytest.fixture
def edge(demo: Demo, tmp_path: Path) -> Iterator[Edge]:
    """The demo's nginx to break; its files are put back and loaded after the test."""
    made = Edge(demo, tmp_path / "edge")
    yield made
    made.restore()
