"""Deployment fails: errors of its script, failing builds, pending migrations, environments that lack something."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath

from allodoc_health.finding import Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.compose import ComposeConfig
from fixtures.deploy_log import DeployLog
from fixtures.dockerfile import Dockerfile
from fixtures.env_parity import EnvParity
from fixtures.images import RunningImage, short
from fixtures.migrations import Migrations
from fixtures.packages import Packages
from fixtures.working_tree import Revisions, same


@symptom("deploy.log", severity=Severity.MAJOR, caused_by=["host.disk", "host.docker"])
def test_the_last_deployment_went_through(
    deploy_log: DeployLog, limits: Limits, now: datetime, finding: Recorder
) -> None:
    """The last deployment came to its end without an error."""
    log = deploy_log
    finding.fact(path=log.path)
    finding.note(*(f"error: {line}" for line in log.first_errors), *(f"warning: {line}" for line in log.first_warnings))
    age = duration((now - (log.ended or log.written_at)).total_seconds())
    if log.end == "failed":
        finding.fail(f"the last deployment failed {age} ago")
    if log.errors:
        finding.fail(f"{log.errors} errors in the last deployment's log, {age} ago")
    if log.end == "open":
        silence = (now - log.written_at).total_seconds()
        finding.measure("no end of the deployment, silent for", silence, unit="s", limit=limits.deploy.log_silence)
    if log.end == "unmarked":
        finding.warn(f"{PurePosixPath(log.path).name} does not say where a deployment begins and ends")
    if log.warnings:
        finding.warn(f"{log.warnings} warnings in the last deployment's log, {age} ago")
    took = f", after {duration((log.ended - log.began).total_seconds())}" if log.ended and log.began else ""
    finding.says(f"the last deployment ended {age} ago{took}")


@symptom("deploy.revision", severity=Severity.MAJOR, caused_by=["deploy.log"])
def test_the_released_commit_runs(revisions: Revisions, finding: Recorder) -> None:
    """The commit that was released is on disk, unchanged, and is the one that runs."""
    wanted = revisions.expected or revisions.commit
    finding.fact(path=revisions.path, commit=wanted[:12])
    if revisions.expected and revisions.commit and not same(revisions.expected, revisions.commit):
        finding.fail(f"on disk is {revisions.commit[:8]}, expected is {wanted[:8]}", variant="checkout")
    for role, commit in revisions.running.items():
        if not same(commit, wanted):
            finding.fact(role=role)
            finding.fail(f"{role} runs {commit[:8]}, {'expected' if revisions.expected else 'on disk'} is {wanted[:8]}")
    if revisions.changes:
        finding.note(*(f"changed: {name}" for name in revisions.changed))
        finding.warn(f"{revisions.changes} files on disk differ from commit {revisions.commit[:8]}", variant="dirty")
    runs = f"run by {' and '.join(revisions.running)}" if revisions.running else "no image tells its own"
    finding.says(f"commit {wanted[:8]}{f' of {revisions.branch}' if revisions.branch else ''}, {runs}")


@symptom("deploy.compose-config", severity=Severity.MAJOR)
def test_the_compose_file_is_valid(compose_config: ComposeConfig, finding: Recorder) -> None:
    """The compose file is valid, and every variable in it has a value."""
    config = compose_config
    file = PurePosixPath(config.files[-1])
    finding.fact(path=file, folder=file.parent, name=file.name, command=config.command)
    if config.problem:
        finding.note(f"according to {config.judged_by}")
        finding.fail(config.problem)
    if config.missing:
        finding.fail(f"{file.name} requires {', '.join(config.missing)}, which is not set", variant="variables")
    if config.unset:
        finding.warn(f"{file.name} takes {', '.join(config.unset)} for empty: not set", variant="variables")
    accepted = "unchanged since the services were made" if config.unchanged else f"according to {config.judged_by}"
    finding.says(f"{config.services} services in {file.name}, valid: {accepted}")


@symptom("deploy.image-current", severity=Severity.MINOR)
def test_the_tagged_image_runs(running_image: RunningImage, finding: Recorder) -> None:
    """The service runs the image that its tag names now."""
    image = running_image
    finding.fact(image=image.name, id=short(image.id), container=image.container)
    if image.built and image.current_built and image.current_built > image.built:
        newer = duration((image.current_built - image.built).total_seconds())
        finding.note(f"{image.name} was built {newer} after the image that runs")
    if image.current is None and not image.pinned:
        finding.warn(f"{image.name} is not on this engine any more; {short(image.id)} runs", variant="gone")
    elif not image.is_current:
        finding.warn(f"{image.name} is {short(image.current or '')} by now; {short(image.id)} runs")
    finding.says(f"{image.name} is {short(image.id)}, which runs")


@symptom("deploy.dockerfile", severity=Severity.MINOR, only=("backend", "frontend"))
def test_the_dockerfile_can_be_parsed(dockerfile: Dockerfile, finding: Recorder) -> None:
    """The Dockerfile has no error of syntax, so the next build can begin."""
    file = PurePosixPath(dockerfile.path)
    finding.note(*map(str, (*dockerfile.problems, *dockerfile.warnings)))
    if dockerfile.problems:
        finding.fact(path=file, folder=file.parent, name=file.name, line=dockerfile.problems[0].line)
        finding.fail(f"{file.name}, {dockerfile.problems[0]}")
    elif dockerfile.warnings:
        finding.fact(path=file, folder=file.parent, name=file.name, line=dockerfile.warnings[0].line)
        finding.warn(f"{file.name}, {dockerfile.warnings[0]}")
    finding.says(f"{dockerfile.instructions} instructions, stages: {dockerfile.stages}")


@symptom(
    "deploy.dependencies",
    severity=Severity.MAJOR,
    caused_by=[
        "deploy.log",
        "service.running[backend]",
        "service.restart-loop[backend]",
        "service.oom-killed[backend]",
        "service.resource-limits[backend]",
        "host.cpu[backend]",
    ],
)
def test_the_packages_are_those_of_the_lock_file(packages: Packages, finding: Recorder) -> None:
    """The backend's packages are those that its lock file names."""
    finding.follows_only_from("deploy.log")  # a backend that ends keeps us from looking, and takes no package away
    finding.fact(folder=packages.folder, package=(packages.missing or packages.invalid or ("",))[0].partition(" ")[0])
    finding.note(*(f"missing: {name}" for name in packages.missing))
    finding.note(*(f"other version: {name}" for name in packages.invalid))
    finding.note(*(f"extraneous: {name}" for name in packages.extraneous))
    if packages.missing_count:
        finding.fail(f"{packages.missing_count} packages of {packages.source} are missing: {packages.missing[0]}")
    if packages.invalid_count:
        finding.fail(f"{packages.invalid_count} packages have another version: {packages.invalid[0]}")
    if packages.extraneous_count:
        finding.warn(f"{packages.extraneous_count} packages that nothing asks for: {packages.extraneous[0]}")
    finding.says(f"{packages.installed} packages as in {packages.source}")


@symptom("deploy.migrations", severity=Severity.CRITICAL, smoke=True, caused_by=["deploy.log", "db.query"])
def test_the_database_is_at_the_codes_migrations(migrations: Migrations, finding: Recorder) -> None:
    """The database has every migration of the code that runs, and no other."""
    finding.fact(table=migrations.table or "migrations", run=migrations.run_command, revert=migrations.revert_command)
    finding.fact(show=migrations.show_command, latest=migrations.latest)
    finding.note(*(f"pending: {name}" for name in migrations.pending[:10]))
    finding.note(*(f"only in the database: {name}" for name in (*migrations.newer, *migrations.older)))
    if migrations.newer:
        finding.fail(f"the database is newer than the code: {migrations.newer[-1]}", variant="newer")
    if migrations.pending and not migrations.table:
        finding.fail(f"none of {migrations.code} migrations ran: the database has no table of them")
    elif migrations.pending:
        finding.fail(f"{len(migrations.pending)} of {migrations.code} migrations pending: {migrations.pending[0]}")
    if migrations.older:
        finding.warn(f"{len(migrations.older)} old migrations are not in the code any more", variant="newer")
    finding.says(f"{migrations.code} migrations, up to {migrations.latest}")


@symptom(
    "deploy.env-parity",
    severity=Severity.MAJOR,
    caused_by=[
        "service.required-env[backend]",
        "db.login",
        "db.parameters-match",
        "db.reachable-from-backend",
        "cache.ping",
        "network.service-link[backend-to-redis]",
        "auth.jwt-secrets",
        "auth.refresh-config",
        "network.cors-config",
    ],
)
def test_the_environment_has_what_the_example_names(env_parity: EnvParity, finding: Recorder) -> None:
    """The production environment has every variable of its example, and no other."""
    finding.follows_only_from(*env_parity.missed_by)
    for pair in env_parity.pairs:
        name = f"{PurePosixPath(pair.file).parent.name}/{PurePosixPath(pair.file).name}"
        if pair.missing:
            finding.fact(file=pair.file, example=pair.example)
            finding.fail(f"{name} lacks {', '.join(pair.missing)}")
        for what, names in (("has nothing for", pair.empty), ("repeats", pair.repeated)):
            if names:
                finding.fact(file=pair.file, example=pair.example)
                finding.warn(f"{name} {what} {', '.join(names)}", variant="untidy")
        if pair.extra:
            finding.fact(file=pair.file, example=pair.example)
            finding.warn(f"{name} has {', '.join(pair.extra)}, of which its example says nothing", variant="untidy")
        if pair.defaulted:
            finding.note(f"{name} leaves {', '.join(pair.defaulted)} to compose")
    finding.says(f"{', '.join(PurePosixPath(pair.file).name for pair in env_parity.pairs)}: as in the example")
