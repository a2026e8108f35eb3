"""The checkout of a state folder: this release's files in the layout that the guide knows, as a git working tree.

``STATE/checkout`` holds ``docker-compose.prod.yml``, ``backend/`` and ``frontend/dist/``; backend and nginx run from
it, so what is broken in it is broken in this demo alone. Where there is no git, it has no history and no revision.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from demo.state import CHECKOUT, StateFolder

HERE = Path(__file__).resolve().parent
BACKEND = CHECKOUT / "demo" / "backend"
FRONTEND = CHECKOUT / "demo" / "frontend"
BACKEND_FILES = (".env.example", "package.json", "package-lock.json")
RELEASE_FILES = (
    ".env.example",
    ".gitignore",
    "docker-compose.prod.yml",
    "backend/Dockerfile",
    "frontend/Dockerfile",
)
GIT_TIMEOUT = 20


def lay(folder: StateFolder) -> bool:
    """Bring the checkout to this release and commit it; returns whether there was anything to do.

    A checkout of this very release is left as it is, also when somebody has changed it.
    """
    root, mark = folder.checkout, folder.root / "checkout.release"
    wanted = _fingerprint()
    if root.is_dir() and mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return False
    mark.unlink(missing_ok=True)
    for name in RELEASE_FILES:
        _copy(HERE / name, root / name)
    for name in BACKEND_FILES:
        _copy(BACKEND / name, root / "backend" / name)
    _mirror(BACKEND / "src", root / "backend" / "src", shutil.copy2)
    _mirror(FRONTEND, root / "frontend" / "dist", shutil.copy2)
    # 2,000 files that nobody changes: links to the same, where the file system can have them.
    _mirror(BACKEND / "node_modules", root / "backend" / "node_modules", _link)
    production = root / "backend" / ".env.production"
    production.unlink(missing_ok=True)
    production.symlink_to(os.path.relpath(folder.env_file("backend"), production.parent))
    _open_up(root)
    commit(root, "Release of the demo")
    mark.write_text(wanted, encoding="utf-8")
    return True


def commit(root: Path, message: str) -> None:
    """Commit everything in a checkout, which becomes a repository if it is none; nothing happens without git."""
    if shutil.which("git") is None:
        return
    if not (root / ".git").is_dir():
        _git(root, "init", "--quiet", "--initial-branch=main")
    _git(root, "add", "--all")
    _git(root, "commit", "--quiet", "--allow-empty", f"--message={message}")


def revision(root: Path) -> str:
    """The commit that a checkout is at, read from its files: empty where it is no repository."""
    try:
        head = (root / ".git" / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        return (root / ".git" / head.removeprefix("ref: ")).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _git(root: Path, *arguments: str) -> None:
    # Whatever the user's own configuration says (signing, hooks, templates) is not meant for this.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {f"GIT_{role}_{what}": text for role in ("AUTHOR", "COMMITTER") for what, text in _AUTHOR.items()}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(root)}
    subprocess.run(
        ["git", *arguments], cwd=root, env={**own, **who, **alone}, check=True, capture_output=True, timeout=GIT_TIMEOUT
    )


_AUTHOR = {"NAME": "Demo release", "EMAIL": "release@allodoc.test"}


def _fingerprint() -> str:
    """What the release is made of, by names, sizes and times; of the packages, the list that they were installed by."""
    parts = []
    for path in _sources():
        status = path.stat()
        parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _sources() -> Iterator[Path]:
    yield from (HERE / name for name in RELEASE_FILES)
    yield from (BACKEND / name for name in BACKEND_FILES)
    yield BACKEND / "node_modules" / ".installed"
    for folder in (BACKEND / "src", FRONTEND):
        yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _mirror(source: Path, target: Path, how: object) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, copy_function=how)  # type: ignore[arg-type]  # typeshed wants str


def _link(source: str, target: str) -> None:
    readable = os.lstat(source).st_mode & stat.S_IROTH
    try:
        if readable:
            os.link(source, target, follow_symlinks=False)
            return
    except OSError:
        pass
    shutil.copy2(source, target, follow_symlinks=False)
    if not readable:
        Path(target).chmod(0o644)


def _open_up(root: Path) -> None:
    """Let the services' account read what is no secret: the folders, and the files that are copies."""
    for current, folders, files in os.walk(root):
        place = Path(current)
        place.chmod(0o755)
        folders[:] = [name for name in folders if name != ".git"]
        for name in files if "node_modules" not in place.parts else ():
            if not (place / name).is_symlink():
                (place / name).chmod(0o644)
