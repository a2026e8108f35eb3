"""Ways between the containers, and from the outside to them, that are lost or lead elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from allodoc_health.runtimes.interface import HealthStatus
from tests.beds.docker import PROJECT, ContainerFactory, Stack
from tests.faults.docker.consequences import API_DOWN, EDGE_GONE, PAGE_GONE
from tests.faults.embedded.consequences import THE_API
from tests.faults.fault import fault, steps

SITE = "app.allodoc.com"
CONFIGURATION = "/etc/nginx/nginx.conf"
CERTIFICATE, KEY = "/etc/nginx/tls/server.crt", "/etc/nginx/tls/server.key"
QUICK_RETRIES = {"DATABASE_RETRY_ATTEMPTS": "2", "DATABASE_RETRY_DELAY_MS": "100"}


@fault(root=["db.reachable-from-backend"], may=API_DOWN, mend=steps(0), discovered=True)
def backend_off_the_network(stack: Stack) -> Iterator[None]:
    """The backend was taken off the stack's network: it reaches nobody, and nobody reaches it."""
    stack.disconnect("backend")
    yield


@fault(root=["network.service-link[nginx-to-frontend]"], may=PAGE_GONE, mend=steps(0))
def frontend_off_the_network(stack: Stack) -> Iterator[None]:
    """The frontend was taken off the stack's network, so nginx loses the page."""
    stack.disconnect("frontend")
    yield


@fault(root=["network.service-link[nginx-to-backend]"], may=EDGE_GONE, mend=steps(0))
def nginx_off_the_network(stack: Stack) -> Iterator[None]:
    """nginx was taken off the stack's network: what is behind it works, and no user gets there."""
    stack.disconnect("nginx")
    yield


@fault(root=["db.parameters-match"], may=API_DOWN, mend=steps(0))
def database_name_wrong_in_the_backend(stack: Stack) -> Iterator[Callable[[], object]]:
    """The backend was given a DATABASE_HOST with a typing error: it gives up after its retries, again and again."""
    stack.recreate("backend", {"DATABASE_HOST": "allodoc_postgres_prd", **QUICK_RETRIES})
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 20, "the backend to loop")
    yield stack.correct


@fault(
    root=["network.service-link[backend-to-redis]"],
    may=API_DOWN,
    mend=steps(1),
    discovered=True,
)
def redis_name_wrong_in_the_backend(stack: Stack) -> Iterator[Callable[[], object]]:
    """The backend was given a REDIS_HOST that nobody has."""
    stack.recreate("backend", {"REDIS_HOST": "allodoc_cache_prod"})
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 20, "the backend to loop")
    yield stack.correct


@fault(root=["network.nginx-upstream[allodoc_backend_prod:3000]"], may=THE_API, mend=steps(0))
def nginx_asks_a_stale_address(stack: Stack, container: ContainerFactory) -> Iterator[None]:
    """The backend was made anew and got another address; nginx still asks the old one, where nobody is."""
    old = stack.states["backend"].addresses
    stack.remove("backend")
    container(network=f"{PROJECT}_allodoc")  # whoever comes next gets the address that has become free
    stack.recreate("backend")
    stack.wait_healthy(roles=["backend"])
    assert stack.states["backend"].addresses != old
    yield


@fault(root=["network.nginx-config"], may=["network.nginx-upstream"], mend=steps(0), discovered=True)
def nginx_configuration_broken_on_disk(stack: Stack) -> Iterator[Callable[[], object]]:
    """Somebody edited nginx' configuration and left it broken; the running nginx does not know yet."""
    good = stack.read("nginx", CONFIGURATION)
    stack.put("nginx", CONFIGURATION, good.replace("worker_connections 512;", "worker_connections 512"))
    yield lambda: stack.put("nginx", CONFIGURATION, good)


def namesake(stack: Stack, container: ContainerFactory, role: str, **environment: str) -> None:
    """A second, healthy container of a service's image that has the service's names on the stack's network."""
    like = stack.client.inspect_container(stack.names[role])["Config"]
    given, health = dict(entry.split("=", 1) for entry in like["Env"]), like["Healthcheck"]
    second = container(
        like["Cmd"],
        image=like["Image"],
        env={**given, **environment},
        healthcheck={"test": health["Test"], "interval": health["Interval"], "timeout": health["Timeout"]},
        network=f"{PROJECT}_allodoc",
        init=False,
        start=False,
    )
    stack.call(second, role)
    second.wait_health(HealthStatus.HEALTHY, 30)


@fault(
    root=["network.service-link[backend-to-postgres]"],
    may=["auth.*", "logs.sql-errors", "service.log-errors[backend]", "service.health-endpoint[*]"],
    shows=["allodoc_postgres_prod leads to", "as well"],
    looks=["allodoc_postgres_prod"],
    mend=steps(0),
)
def another_database_bears_the_name(stack: Stack, container: ContainerFactory) -> Iterator[None]:
    """An empty copy of the database was started with the same alias: new connections end in either of the two."""
    namesake(stack, container, "postgres")
    yield


@fault(
    root=["network.service-link[nginx-to-backend]"],
    follows=["network.nginx-upstream[allodoc_backend_prod:3000]"],
    may=["auth.*", "service.log-errors[nginx]", "deploy.upstream-errors"],
    shows=["allodoc_backend_prod leads to", "as well"],
    looks=["allodoc_backend_prod"],
    mend=steps(0, 1),
    discovered=True,
)
def another_backend_bears_the_name(stack: Stack, container: ContainerFactory) -> Iterator[None]:
    """A backend with other secrets was started with the same alias: half of the calls meet one that knows no token."""
    namesake(stack, container, "backend", JWT_ACCESS_SECRET="x7" * 24, JWT_REFRESH_SECRET="y9" * 24)
    assert stack.exec("nginx", "nginx", "-s", "reload").exit_code == 0
    yield


@fault(
    root=["network.service-link[backend-to-redis]"],
    may=["auth.*", "service.log-errors[backend]", "service.health-endpoint[*]"],
    shows=["allodoc_redis_prod leads to", "as well"],
    mend=steps(0),
)
def something_else_bears_the_name_of_redis(stack: Stack, container: ContainerFactory) -> Iterator[None]:
    """A container in which nothing listens was given Redis' alias: each second connection is refused at first."""
    idle = container(network=f"{PROJECT}_allodoc", start=False)
    stack.call(idle, "redis")
    yield


@fault(root=["db.reachable-from-backend"], may=API_DOWN, shows=["leads to 192.0.2.9"], mend=steps(0, 1))
def database_name_leads_nowhere_near(stack: Stack) -> Iterator[None]:
    """A line in the backend's hosts file gives the database an address at which nobody is."""
    stack.write_over("backend", "/etc/hosts", "192.0.2.9 allodoc_postgres_prod\n")
    yield


@fault(root=["db.reachable-from-backend"], may=API_DOWN, looks=["nameserver 127.0.0.1"], mend=steps(0, 1))
def backend_resolves_no_name(stack: Stack) -> Iterator[None]:
    """The backend's resolv.conf names somebody who answers nothing: it finds neither of its stores by name."""
    stack.write_over("backend", "/etc/resolv.conf", "nameserver 127.0.0.1\n")
    yield


def certificate(names: str = SITE, begins: float = -1, ends: float = 365) -> tuple[str, str]:
    """A self-signed certificate and its key as PEM; it is valid between these days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(names)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem).decode(), key.private_bytes(pem, form, plain).decode()


def install(stack: Stack, crt: str, key: str, *, reload: bool = False) -> None:
    """Put a certificate and its key where nginx reads them."""
    stack.put("nginx", CERTIFICATE, crt)
    stack.put("nginx", KEY, key)
    if reload:
        stack.exec("nginx", "nginx", "-s", "reload")


@fault(warns=[f"tls.served-is-installed[{SITE}]"], mend=steps(0))
def certificate_renewed_and_not_served(stack: Stack) -> Iterator[None]:
    """A new certificate lies on disk, and nginx was not told."""
    install(stack, *certificate())
    yield


@fault(root=[f"tls.expiry[{SITE}]"], may=[f"tls.trust[{SITE}]"], mend=steps(0))
def certificate_expired(stack: Stack) -> Iterator[Callable[[], object]]:
    """The certificate ran out yesterday."""
    old = stack.read("nginx", CERTIFICATE), stack.read("nginx", KEY)
    install(stack, *certificate(begins=-90, ends=-1), reload=True)
    yield lambda: install(stack, *old)
