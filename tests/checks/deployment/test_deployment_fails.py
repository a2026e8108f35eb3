"""Deployments that fail: each fault made in the real demo, named by the suite, and mended by its remedy."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.beds.embedded import Demo
from tests.beds.suite import Health
from tests.checks.deployment.conftest import Release, look

WHOLE = ("checks/deployment", "checks/service", "checks/db")


_FRONTEND = "    build: ./frontend\n    image: allodoc/frontend:1.0.0\n"
_VISITS = """module.exports = { up: ['CREATE TABLE "visits" ("id" int)'], down: ['DROP TABLE "visits"'] };\n"""


def stamp(ago: timedelta = timedelta()) -> str:
    """A time as deploy scripts write it."""
    return (datetime.now(UTC) - ago).isoformat(timespec="seconds")


def test_the_healthy_demo_is_calm(demo: Demo, suite: Health) -> None:
    """On a whole demo every check of the chapter passes, or has no images, frontend or window to look at."""
    run = suite("checks/deployment", target=demo.target)
    run.is_calm()
    assert not run.names("warn"), run.output
    assert {name for name in run.names("not-applicable") if "image-current" not in name} == {
        "deploy.availability",
        "deploy.graceful-shutdown[frontend]",
    }


# --- deploy.log ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(
            ["{now} npm ERR! code E404", "{now} INFO === Deployment finished ==="], "1 errors", id="errors-and-an-end"
        ),
        pytest.param(
            ["{now} Container allodoc_backend_prod is unhealthy", "{now} done deploying"], "1 errors", id="words"
        ),
    ],
)
def test_a_failed_deployment_is_named(release: Release, suite: Health, lines: list[str], said: str) -> None:
    """Errors in the last deployment's log, or no end of it, are a failure; an older or a later one is not."""
    old = timedelta(hours=2)
    begun = old if "{old}" in lines[0] else timedelta()
    release.write_log(f"{stamp(begun)} INFO  === Deployment started: abc1234 ===")
    release.write_log(*(line.format(now=stamp(), old=stamp(old)) for line in lines))
    run = suite(*WHOLE, target=release.demo.target)
    run.blames("deploy.log")
    assert said in run.finding("deploy.log")["message"]
    assert "=== Deployment started" in look(run, "deploy.log")
    release.write_log(f"{stamp()} Starting deployment", f"{stamp()} Deployment completed successfully")
    suite("checks/deployment", target=release.demo.target).is_calm()


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["{now} === Deployment started ===", "{now} INFO building"], id="under-way"),
        pytest.param(
            ["{now} Deployment started", "{now} npm WARN deprecated x@1", "{now} Deployment finished"], id="warnings"
        ),
    ],
)
def test_what_is_not_over_or_not_grave_warns(release: Release, suite: Health, lines: list[str]) -> None:
    """A deployment that is under way, and warnings in one that ended, are only warned of."""
    release.write_log(*(line.format(now=stamp()) for line in lines))
    suite("checks/deployment", target=release.demo.target).warns("deploy.log")


def test_words_of_other_logs(release: Release, suite: Health) -> None:
    """A log without any marker warns; "0 errors" in one with markers does not count."""
    release.log.write_text("building\nall fine\n", encoding="utf-8")
    suite("checks/deployment", "-k", "deploy.log", target=release.demo.target).warns("deploy.log")
    release.log.write_text("Deploying release 7: start\n0 errors, no failures\nDeployment done\n", encoding="utf-8")
    run = suite("checks/deployment", "-k", "deploy.log", target=release.demo.target)
    assert run.outcome("deploy.log") == "pass", run.output


def test_junk_and_secrets_in_the_log(release: Release, suite: Health) -> None:
    """Binary junk does not matter, and what an error line holds is masked."""
    password = release.demo.environment("postgres")["POSTGRES_PASSWORD"]
    with release.log.open("ab") as stream:
        stream.write(b"Deployment started\n\x00\xff\xfe junk \x1b[31m\n")
        stream.write(f"ERROR: can't log in with {password} for Erika Musterfrau\nDeployment finished\n".encode())
    run = suite("checks/deployment", target=release.demo.target)
    run.blames("deploy.log")
    written = run.output + json.dumps(run.snapshot) + (run.folder / "latest.html").read_text("utf-8")
    assert password not in written
    assert "Musterfrau" not in written


# --- deploy.revision -------------------------------------------------------------------------------------------------


def test_another_commit_than_expected(release: Release, suite: Health) -> None:
    """The commit that the target file expects is the measure; the remedy brings the tree to it."""
    target = f'{release.demo.target}[deployment]\nrevision = "{release.commit[:10]}"\n'
    suite("checks/deployment", target=target).is_calm()
    release.git("commit", "--quiet", "--allow-empty", "--message", "later")
    run = suite("checks/deployment", target=target)
    run.blames("deploy.revision")
    assert run.finding("deploy.revision")["remedy"].endswith("#another-commit-is-on-disk-than-expected")
    run.do("deploy.revision", "look")
    run.do("deploy.revision", steps=[0])
    suite("checks/deployment", target=target).is_calm()
    release.git("checkout", "--quiet", "main")


# --- deploy.compose-config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("  redis:\n", "  redis:\n\tx: y\n", "line ", id="yaml"),
        pytest.param("depends_on: [postgres, redis]", "depends_on: [postgres, redes]", "redes", id="depends-on"),
        pytest.param(_FRONTEND, "", "neither an image", id="no-image"),
    ],
)
def test_a_broken_compose_file(release: Release, suite: Health, old: str, new: str, said: str) -> None:
    """What compose would refuse is a failure with its place; the committed file is right again."""
    release.edit("docker-compose.prod.yml", old, new)
    run = suite(*WHOLE, target=release.demo.target)
    run.blames("deploy.compose-config")
    assert said in run.finding("deploy.compose-config")["message"]
    look(run, "deploy.compose-config")
    run.do("deploy.compose-config", steps=[0])
    assert suite("checks/deployment", target=release.demo.target).outcome("deploy.compose-config") == "pass"


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed here")
def test_what_only_compose_itself_refuses(release: Release, suite: Health) -> None:
    """A file that was changed since is given to compose, which knows every key."""
    release.edit("docker-compose.prod.yml", "mem_limit: 128m", "mem_limitt: 128m")
    run = suite("checks/deployment", "-k", "compose", target=release.demo.target)
    run.blames("deploy.compose-config")
    assert "docker-compose" in " ".join(run.finding("deploy.compose-config")["details"])


def test_variables_without_a_value(release: Release, suite: Health) -> None:
    """A required variable that is not set is a failure, one that becomes empty silently a warning."""
    env = release.root / ".env"
    kept = env.read_text(encoding="utf-8")
    try:
        env.write_text("".join(line for line in kept.splitlines(True) if "REDIS" not in line), encoding="utf-8")
        run = suite("checks/deployment", target=release.demo.target)
        run.blames("deploy.compose-config", "deploy.env-parity")
        assert "REDIS_PASSWORD" in run.finding("deploy.compose-config")["message"]
        look(run, "deploy.compose-config")
    finally:
        env.write_text(kept, encoding="utf-8")
    release.edit("docker-compose.prod.yml", "mem_limit: 128m", "mem_limit: ${FRONTEND_MEMORY}")
    run = suite("checks/deployment", "-k", "compose", target=release.demo.target)
    assert "FRONTEND_MEMORY" in run.finding("deploy.compose-config")["message"]


# --- deploy.dockerfile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["backend", "frontend"])
def test_a_broken_dockerfile(release: Release, suite: Health, service: str) -> None:
    """A Dockerfile that can't be parsed is a failure with its line; the committed file is right again."""
    name = f"deploy.dockerfile[{service}]"
    release.edit(f"{service}/Dockerfile", "EXPOSE", "EXPOSSE")
    run = suite("checks/deployment", target=release.demo.target)
    run.blames(name)
    assert "did you mean EXPOSE?" in run.finding(name)["message"]
    assert "EXPOSSE" in look(run, name)
    run.do(name, steps=[0])
    assert suite("checks/deployment", target=release.demo.target).outcome(name) == "pass"


def test_a_doubtful_dockerfile(release: Release, suite: Health) -> None:
    """What a build only complains of is a warning."""
    release.edit("backend/Dockerfile", 'CMD ["node", "src/main.js"]', "CMD node src/main.js")
    run = suite("checks/deployment", "-k", "dockerfile", target=release.demo.target)
    assert run.outcome("deploy.dockerfile[backend]") == "warn", run.output


# --- deploy.dependencies ---------------------------------------------------------------------------------------------


def test_another_version_and_one_too_many(release: Release, suite: Health) -> None:
    """Another version than the lock file's is a failure, a package that nothing asks for a warning."""
    modules = release.root / "backend" / "node_modules"
    stray = modules / "left-over"
    stray.mkdir()
    try:
        (stray / "package.json").write_text('{"name": "left-over", "version": "1.0.0"}', encoding="utf-8")
        run = suite("checks/deployment", target=release.demo.target)
        run.warns("deploy.dependencies")
        assert "left-over 1.0.0" in run.finding("deploy.dependencies")["message"]
    finally:
        shutil.rmtree(stray)
    manifest = modules / "bintrees" / "package.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.unlink()  # it may be a link to the one that all demos share
    try:
        manifest.write_text(text.replace('"version": "1.0', '"version": "9.9'), encoding="utf-8")
        run = suite("checks/deployment", target=release.demo.target)
        run.blames("deploy.dependencies")
        assert "another version" in run.finding("deploy.dependencies")["message"]
    finally:
        manifest.write_text(text, encoding="utf-8")


# --- deploy.migrations -----------------------------------------------------------------------------------------------


def test_a_pending_migration(release: Release, suite: Health) -> None:
    """A migration that did not run is a failure; the remedy's command runs it, and takes it back."""
    demo = release.demo
    file = release.root / "backend" / "src" / "migrations" / "1730000000000-Visits.js"
    file.write_text(_VISITS, encoding="utf-8")
    run = suite(*WHOLE, target=demo.target)
    run.blames("deploy.migrations")
    assert "1 of 4 migrations pending: Visits1730000000000" in run.finding("deploy.migrations")["message"]
    assert "[ ] Visits1730000000000" in look(run, "deploy.migrations")
    try:
        run.do("deploy.migrations", steps=[0])
        assert suite(*WHOLE, target=demo.target).outcome("deploy.migrations") == "pass"
    finally:
        run.do("deploy.migrations", steps=[1])
    assert demo.sql("SELECT to_regclass('visits')") == [(None,)]


def test_a_database_ahead_of_the_code(release: Release, suite: Health) -> None:
    """A migration that only the database has is a failure if it is newer than the code, a warning if it is old."""
    demo = release.demo
    demo.sql("""INSERT INTO "migrations" ("timestamp", "name") VALUES (1799000000000, 'Future1799000000000')""")
    try:
        run = suite(*WHOLE, target=demo.target)
        run.blames("deploy.migrations")
        assert run.finding("deploy.migrations")["remedy"].endswith("#the-database-is-ahead-of-the-code")
        assert "Future1799000000000" in look(run, "deploy.migrations")
        demo.sql("""UPDATE "migrations" SET "timestamp" = 1, "name" = 'Past1' WHERE "timestamp" = 1799000000000""")
        suite("checks/deployment", target=demo.target).warns("deploy.migrations")
    finally:
        demo.sql("""DELETE FROM "migrations" WHERE "timestamp" IN (1, 1799000000000)""")
    assert suite("checks/deployment", target=demo.target).outcome("deploy.migrations") == "pass"


def test_a_row_that_was_deleted(release: Release, suite: Health) -> None:
    """A migration that the table has lost is pending again, whatever the schema says."""
    demo = release.demo
    row = demo.sql(
        """DELETE FROM "migrations" WHERE "timestamp" = 1720000000000 RETURNING "id", "timestamp", "name" """
    )
    try:
        run = suite("checks/deployment", target=demo.target)
        run.blames("deploy.migrations")
        assert "RefreshTokens1720000000000" in run.finding("deploy.migrations")["message"]
    finally:
        demo.sql("""INSERT INTO "migrations" ("id", "timestamp", "name") VALUES (%s, %s, %s)""", *row[0])


def test_migrations_without_a_database(release: Release, suite: Health) -> None:
    """With PostgreSQL stopped, migrations are blocked by it and no cause of their own."""
    release.demo.stop("postgres")
    run = suite("checks/deployment", "checks/service", "checks/db", target=release.demo.target)
    run.blames("service.running[postgres]")
    assert run.outcome("deploy.migrations") == "blocked"


# --- deploy.env-parity -----------------------------------------------------------------------------------------------


def test_a_variable_that_the_example_names(release: Release, suite: Health) -> None:
    """A variable of the example that production lacks is a failure; the remedy shows names and no value."""
    demo = release.demo
    rounds = demo.environment("backend")["BCRYPT_ROUNDS"]
    demo.unset_env("backend", "BCRYPT_ROUNDS")
    run = suite("checks/deployment", target=demo.target)
    run.blames("deploy.env-parity")
    assert "BCRYPT_ROUNDS" in run.finding("deploy.env-parity")["message"]
    shown = look(run, "deploy.env-parity")
    assert "BCRYPT_ROUNDS" in shown
    assert demo.environment("backend")["DATABASE_PASSWORD"] not in shown
    demo.set_env("backend", BCRYPT_ROUNDS=rounds)
    suite("checks/deployment", target=demo.target).is_calm()


def test_untidy_environments(release: Release, suite: Health) -> None:
    """More variables than the example has, empty ones and repeated ones are warned of by name."""
    demo = release.demo
    demo.set_env("backend", FEATURE_X="on", COOKIE_SECRET="")
    with demo.folder.env_file("backend").open("a", encoding="utf-8") as stream:
        stream.write("LOG_LEVEL=debug\n")
    run = suite("checks/deployment", target=demo.target)
    run.warns("deploy.env-parity")
    finding = run.finding("deploy.env-parity")
    told = " ".join([finding["message"], *finding["details"]])
    assert all(name in told for name in ("FEATURE_X", "COOKIE_SECRET", "LOG_LEVEL"))
