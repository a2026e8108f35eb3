"""Releases on the embedded demo: what was deployed, what runs, and what the database and the settings are at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave, behave
from tests.beds.release import Release
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

DEPLOY_AGAIN = Exempt("the deploy script belongs to the operators; running it again is no command of the guide's")
VISITS = 'module.exports = { up: [\'CREATE TABLE "visits" ("id" int)\'], down: [\'DROP TABLE "visits"\'] };\n'


def stamp(ago: timedelta = timedelta()) -> str:
    """A time as deploy scripts write it."""
    return (datetime.now(UTC) - ago).isoformat(timespec="seconds")


def deployed(release: Release) -> None:
    """The next deployment, which goes through."""
    release.write_log(f"{stamp()} Deployment started", f"{stamp()} Deployment finished")


def new_migration(release: Release, text: str = VISITS) -> None:
    """A migration that the release brought along."""
    (release.root / "backend" / "src" / "migrations" / "1730000000000-Visits.js").write_text(text, "utf-8")


# --- the deployment itself --------------------------------------------------------------------------------------------


@fault(root=["deploy.log"], shows=["failed", "npm ERR! code E404"], looks=["npm ERR! code E404"], mend=steps())
def deployment_failed(release: Release) -> Iterator[Hand]:
    """A step of the deployment failed; what ran before runs on."""
    release.write_log(f"{stamp()} === Deployment started: abc1234 ===", f"{stamp()} npm ERR! code E404")
    release.write_log(f"{stamp()} ERROR === Deployment failed: abc1234 ===")
    yield lambda: deployed(release)


@fault(root=["deploy.log"], shows=["silent for"], looks=["INFO building"], mend=steps())
def deployment_cut_short(release: Release) -> Iterator[Hand]:
    """The session in which somebody deployed was lost two hours ago: the log has no end."""
    ago = timedelta(hours=2)
    release.write_log(f"{stamp(ago)} === Deployment started: abc1234 ===", f"{stamp(ago)} INFO building")
    yield lambda: deployed(release)


@fault(
    root=["deploy.log"],
    follows=["deploy.migrations"],
    shows=["error: Migration"],
    looks=["Migration Visits1730000000000 failed"],
    mend=DEPLOY_AGAIN,
)
def migration_failed_half_way(release: Release) -> Iterator[None]:
    """A deployment ended in its migrations: the code is new, the schema is not."""
    new_migration(release)
    release.write_log(f"{stamp()} Deployment started", f"{stamp()} ERROR Migration Visits1730000000000 failed")
    release.write_log(f"{stamp()} Deployment failed")
    yield


@fault(
    root=["deploy.revision"],
    shows=["on disk is"],
    looks=["a release of its own"],
    mend=steps(0),
)
def revision_on_disk_was_not_deployed(release: Release) -> Iterator[None]:
    """Somebody pulled, and did not deploy: the backend runs an older commit than the one on disk."""
    release.git("commit", "--quiet", "--allow-empty", "--message", "a release of its own")
    yield


@fault(warns=["deploy.revision"], shows=["backend/src/health.js"], looks=["backend/src/health.js"], mend=steps(0))
def files_changed_on_the_server(release: Release) -> Iterator[None]:
    """Somebody mended a file on the spot."""
    release.edit("backend/src/health.js", "'use strict';", "'use strict'; // mended on the spot")
    yield


@fault(
    root=["deploy.compose-config"],
    shows=["network elsewhere"],
    looks=["docker-compose.prod.yml"],
    mend=steps(0),
)
def compose_file_broken(release: Release) -> Iterator[None]:
    """The compose file names a network that it does not define: the next `up` would do nothing."""
    release.edit("docker-compose.prod.yml", "networks: [allodoc]", "networks: [elsewhere]")
    yield


@fault(
    root=["deploy.compose-config", "deploy.env-parity"],
    shows=["REDIS_PASSWORD"],
    looks=["DATABASE_PASSWORD="],
    mend={"deploy.compose-config": steps(0), "deploy.env-parity": steps()},
)
def compose_variable_without_a_value(release: Release) -> Iterator[Hand]:
    """The .env file beside the compose file lost a line, which two checks see, each in its own file."""
    env = release.root / ".env"
    kept = env.read_text("utf-8")
    env.write_text("".join(line for line in kept.splitlines(True) if "REDIS" not in line), "utf-8")
    try:
        yield lambda: env.write_text(kept, "utf-8")
    finally:
        env.write_text(kept, "utf-8")


@fault(root=["deploy.dockerfile[backend]"], shows=["did you mean EXPOSE?"], looks=["EXPOSSE"], mend=steps(0))
def dockerfile_broken(release: Release) -> Iterator[None]:
    """An instruction of the Dockerfile was mistyped: the next build ends there."""
    release.edit("backend/Dockerfile", "EXPOSE", "EXPOSSE")
    yield


@fault(root=["deploy.dependencies"], shows=["bintrees"], looks=["no such package"], mend=steps(0))
def package_missing(release: Release) -> Iterator[None]:
    """A package of the lock file is not installed: the process that runs has it in memory, the next one will not."""
    shutil.rmtree(release.root / "backend" / "node_modules" / "bintrees")
    yield


@fault(
    root=["deploy.dependencies"],
    follows=["deploy.migrations"],
    shows=["has not listed its code within"],
    looks=["v"],
    mend=steps(),
)
def code_that_can_not_be_listed(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """One more process in the backend's place does not come to its end."""
    misbehave("if ((process._eval || '').includes('hasManifest')) for (;;);")
    yield partial(behave, demo)


# --- migrations -------------------------------------------------------------------------------------------------------


@fault(
    root=["deploy.migrations"],
    shows=["1 of 4 migrations pending: Visits1730000000000"],
    looks=["[ ] Visits1730000000000"],
    mend=steps(0),
)
def migration_pending(release: Release) -> Iterator[None]:
    """A release was deployed without its migration."""
    new_migration(release)
    try:
        yield
    finally:
        release.demo.sql('DROP TABLE IF EXISTS "visits"')
        release.demo.sql("""DELETE FROM "migrations" WHERE "timestamp" = 1730000000000""")


@fault(
    root=["deploy.migrations"],
    shows=["the database is newer than the code: Future1799000000000"],
    looks=["Future1799000000000"],
    mend=steps(),
)
def code_rolled_back_without_the_database(demo: Demo) -> Iterator[Hand]:
    """The code was rolled back, the database was not."""
    demo.sql("""INSERT INTO "migrations" ("timestamp", "name") VALUES (1799000000000, 'Future1799000000000')""")

    def back() -> None:
        demo.sql("""DELETE FROM "migrations" WHERE "timestamp" = 1799000000000""")

    try:
        yield back
    finally:
        back()


@fault(root=["deploy.migrations"], shows=["no table of them"], mend=steps())
def table_of_migrations_lost(demo: Demo) -> Iterator[Hand]:
    """A restored database lacks its table of migrations."""

    def back() -> None:
        demo.sql('ALTER TABLE IF EXISTS "kept_aside" RENAME TO "migrations"')

    demo.sql('ALTER TABLE "migrations" RENAME TO "kept_aside"')
    try:
        yield back
    finally:
        back()


# --- settings ---------------------------------------------------------------------------------------------------------


@fault(root=["deploy.env-parity"], shows=["BCRYPT_ROUNDS"], looks=["BCRYPT_ROUNDS"], mend=steps(1))
def variable_of_the_example_missing(demo: Demo) -> Iterator[Hand]:
    """A variable that the example names is not in production's file."""
    rounds = demo.environment("backend")["BCRYPT_ROUNDS"]
    demo.unset_env("backend", "BCRYPT_ROUNDS")
    yield lambda: demo.set_env("backend", BCRYPT_ROUNDS=rounds)


@fault(warns=["deploy.env-parity"], shows=["FEATURE_X"], looks=["FEATURE_X"], mend=steps())
def variable_that_nothing_reads(demo: Demo) -> Iterator[Hand]:
    """A variable was left behind by a release of long ago."""
    demo.set_env("backend", FEATURE_X="on")
    yield lambda: demo.unset_env("backend", "FEATURE_X")


# --- stopping ---------------------------------------------------------------------------------------------------------

HANDLER = "  process.on('SIGTERM', () => stop('SIGTERM'));\n"
SERVICE = "deploy.graceful-shutdown[backend]"


@fault(warns=[SERVICE], shows=["no handler for SIGTERM"], looks=["SigCgt"], mend=steps(0))
def signal_without_a_handler(release: Release) -> Iterator[Hand]:
    """A build lost its handler of SIGTERM: each deployment cuts requests off."""
    release.edit("backend/src/main.js", HANDLER, "")
    release.demo.recreate("backend")
    release.demo.wait_healthy("backend")
    yield lambda: release.git("checkout", "--quiet", "--", ".")


@fault(root=[SERVICE], shows=["killed at its last stop"], looks=["SigCgt"], mend=steps(0))
def signal_ignored(release: Release) -> Iterator[Hand]:
    """A build takes no notice of SIGTERM: it was killed at its last stop."""
    release.edit("backend/src/main.js", HANDLER, "  process.on('SIGTERM', () => undefined);\n")
    release.demo.recreate("backend")
    release.demo.wait_healthy("backend")
    release.demo.restart("backend")
    release.demo.wait_healthy("backend")
    yield lambda: release.git("checkout", "--quiet", "--", ".")
