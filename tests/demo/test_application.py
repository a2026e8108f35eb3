"""The application behind the edge: health, login and patients, as users and probes meet them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.beds.embedded import Demo


@pytest.fixture
def edge(demo: Demo) -> Iterator[requests.Session]:
    """A client that trusts the demo's CA and talks to nginx."""
    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would count for more than ours
        session.verify = str(demo.ca_file)
        yield session


def api(demo: Demo, path: str) -> str:
    """An address of the API behind nginx."""
    return f"{demo.urls['https']}/api/v1{path}"


def log_in(demo: Demo, edge: requests.Session) -> dict[str, Any]:
    """The tokens of the smoke account."""
    answer = edge.post(api(demo, "/auth/login"), json=demo.smoke, timeout=5)
    assert answer.status_code == 201
    body: dict[str, Any] = answer.json()
    return body


def test_health_names_both_dependencies(demo: Demo, edge: requests.Session) -> None:
    """The health route says healthy and how long each dependency took."""
    body = edge.get(api(demo, "/health"), timeout=5).json()
    assert body["status"] == "healthy"
    assert {name: service["status"] for name, service in body["services"].items()} == {"database": "up", "redis": "up"}


def test_health_answers_200_without_database(demo: Demo, edge: requests.Session) -> None:
    """Without PostgreSQL, health is 200 and unhealthy, a login is 401 and the container stays healthy."""
    demo.stop("postgres")
    answer = edge.get(api(demo, "/health"), timeout=5)
    assert answer.status_code == 200
    assert answer.json()["status"] == "unhealthy"
    assert edge.post(api(demo, "/auth/login"), json=demo.smoke, timeout=5).status_code == 401
    assert demo.is_healthy("backend")


def test_backend_ends_when_redis_does(demo: Demo, edge: requests.Session) -> None:
    """Without Redis the backend exits with 1, again and again, and nginx answers 502."""
    demo.stop("redis")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, what="two restarts")
    assert demo.service("backend")["exit_code"] == 1
    demo.wait_status("backend", "restarting")
    assert edge.get(api(demo, "/live"), timeout=5).status_code == 502


def test_redis_password_that_the_backend_lacks(demo: Demo, edge: requests.Session) -> None:
    """A backend without the password runs on, says NOAUTH in its health, and fails to log anybody in."""
    demo.set_env("backend", REDIS_PASSWORD="")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    body = edge.get(api(demo, "/health"), timeout=5).json()
    assert "NOAUTH" in body["services"]["redis"]["error"]
    assert edge.post(api(demo, "/auth/login"), json=demo.smoke, timeout=5).status_code == 500


def test_missing_secrets_are_named(demo: Demo) -> None:
    """Without its JWT secrets the backend exits with 1 and says which they are."""
    demo.unset_env("backend", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["exit_code"] == 1, what="the backend to give up")
    assert "JWT_ACCESS_SECRET and JWT_REFRESH_SECRET must be set" in demo.log_text("backend")


def test_login_refresh_profile_logout(demo: Demo, edge: requests.Session) -> None:
    """Tokens open the profile, a refresh token works once, and a logout ends both."""
    body = log_in(demo, edge)
    assert body["expiresIn"] == 900
    cookies = {cookie.name: cookie for cookie in edge.cookies}
    assert set(cookies) == {"access_token", "refresh_token"}
    assert all(cookie.secure and cookie.has_nonstandard_attr("HttpOnly") for cookie in cookies.values())
    edge.cookies.clear()
    bearer = {"Authorization": f"Bearer {body['accessToken']}"}
    assert edge.get(api(demo, "/auth/profile"), headers=bearer, timeout=5).json()["email"] == demo.smoke["email"]

    renewed = edge.post(api(demo, "/auth/refresh"), json={"refreshToken": body["refreshToken"]}, timeout=5)
    assert renewed.status_code == 201
    edge.cookies.clear()
    again = edge.post(api(demo, "/auth/refresh"), json={"refreshToken": body["refreshToken"]}, timeout=5)
    assert again.status_code == 401

    assert edge.post(api(demo, "/auth/logout"), headers=bearer, timeout=5).status_code == 201
    assert edge.get(api(demo, "/auth/profile"), headers=bearer, timeout=5).status_code == 401


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        pytest.param({"email": "nobody@allodoc.test", "password": "wrong"}, 401, id="stranger"),
        pytest.param({"email": "smoke@allodoc.test", "password": "wrong"}, 401, id="wrong-password"),
        pytest.param({"email": "no address", "password": "wrong"}, 400, id="malformed"),
        pytest.param({}, 400, id="empty"),
    ],
)
def test_bad_logins(demo: Demo, edge: requests.Session, credentials: dict[str, str], status: int) -> None:
    """Bad credentials are 401, and what are none is 400."""
    assert edge.post(api(demo, "/auth/login"), json=credentials, timeout=5).status_code == status


def test_patients_of_the_own_organization(demo: Demo, edge: requests.Session) -> None:
    """Patients can be listed, created and read by somebody who is logged in, and by nobody else."""
    assert edge.get(api(demo, "/patients"), timeout=5).status_code == 401
    log_in(demo, edge)
    listed = edge.get(api(demo, "/patients"), params={"limit": 5}, timeout=5).json()
    assert len(listed["data"]) == 5
    person = {"firstName": "Created", "lastName": "Bytest", "dateOfBirth": "2000-02-03"}
    created = edge.post(api(demo, "/patients"), json=person, timeout=5)
    assert created.status_code == 201
    identifier = created.json()["id"]
    assert edge.get(api(demo, f"/patients/{identifier}"), timeout=5).json()["lastName"] == "Bytest"
    demo.sql("DELETE FROM patients WHERE id = %s", identifier)
    assert edge.get(api(demo, f"/patients/{identifier}"), timeout=5).status_code == 404


def test_preflight_names_the_configured_origin(demo: Demo, edge: requests.Session) -> None:
    """CORS answers every origin with the configured one."""
    answer = edge.options(api(demo, "/health"), headers={"Origin": "https://foreign.test"}, timeout=5)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == demo.environment("backend")["CORS_ORIGIN"]
    assert "X-Requested-With" not in answer.headers["Access-Control-Allow-Headers"]


def test_metrics_only_on_the_direct_port(demo: Demo, edge: requests.Session) -> None:
    """The backend has metrics; through nginx the same path is the page."""
    assert "nodejs_eventloop_lag_seconds" in requests.get(f"{demo.urls['api']}/metrics", timeout=5).text
    through = edge.get(f"{demo.urls['https']}/metrics", timeout=5)
    assert through.status_code == 200
    assert "<app-root>" in through.text


def test_plain_http_redirects(demo: Demo) -> None:
    """Port 80 sends browsers to port 443."""
    answer = requests.get(f"{demo.urls['http']}/login?next=1", allow_redirects=False, timeout=5)
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"{demo.urls['https']}/login?next=1"


def test_too_many_requests_are_503(demo: Demo, edge: requests.Session) -> None:
    """nginx limits the API to 10 requests a second after a burst."""
    statuses = {edge.get(api(demo, "/live"), timeout=5).status_code for _ in range(60)}
    assert statuses == {200, 503}


def test_sigterm_is_handled(demo: Demo) -> None:
    """The backend ends by itself, with 0, when it is told to."""
    demo.stop("backend")
    assert demo.service("backend")["exit_code"] == 0
    assert "SIGTERM received" in demo.log_text("backend")


def test_migrations_can_be_undone_and_redone(demo: Demo) -> None:
    """The migration scripts work inside the backend."""
    shown = demo.must("exec", "backend", "--", "npm", "run", "--silent", "migration:show")
    assert shown.count("[X]") == 3
    try:
        reverted = demo.must("exec", "backend", "--", "npm", "run", "--silent", "migration:revert")
        assert "RefreshTokens1720000000000" in reverted
        assert demo.sql("SELECT to_regclass('refresh_tokens')") == [(None,)]
    finally:
        demo.must("exec", "backend", "--", "npm", "run", "--silent", "migration:run")
    assert len(demo.sql("SELECT * FROM migrations")) == 3


def test_quiet_at_start(demo: Demo) -> None:
    """A backend that starts well writes no error."""
    demo.recreate("backend")
    demo.wait_healthy("backend")
    started = f"[Nest] {demo.pid('backend')} "
    lines = [line for line in demo.log_text("backend").splitlines() if started in line]
    assert lines
    assert not [line for line in lines if "ERROR" in line]


def test_postgres_is_set_up_as_promised(demo: Demo) -> None:
    """pg_stat_statements is there, the role is a superuser, and connections are what they should be."""
    rows = demo.sql(
        "SELECT current_setting('max_connections'), current_setting('log_line_prefix'),"
        " current_setting('logging_collector'), current_setting('fsync'), rolsuper,"
        " (SELECT count(*) > 0 FROM pg_stat_statements)"
        " FROM pg_roles WHERE rolname = current_user"
    )
    assert rows == [("50", "%m [%p] ", "off", "on", True, True)]
    names = {name for (name,) in demo.sql("SELECT application_name FROM pg_stat_activity WHERE datname IS NOT NULL")}
    assert "allodoc-backend" in names


def test_wrong_database_password_ends_the_backend(demo: Demo) -> None:
    """A refused password is tried again and then the backend exits with 1."""
    demo.set_env("backend", DATABASE_PASSWORD="wrong", DATABASE_RETRY_DELAY_MS="50")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["exit_code"] == 1, what="the backend to give up")
    assert "Unable to connect to the database. Retrying (5)" in demo.log_text("backend")


def test_paused_redis_hangs_health_but_not_live(demo: Demo) -> None:
    """With a frozen Redis, health gives no answer while live does."""
    demo.pause("redis")
    assert requests.get(f"{demo.urls['api']}/api/v1/live", timeout=2).status_code == 200
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{demo.urls['api']}/api/v1/health", timeout=0.5)
