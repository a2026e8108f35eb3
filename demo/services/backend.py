"""The API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from demo.services.role import Role, RunHelper, Verdict, http_status
from demo.settings import make_owned
from demo.state import CHECKOUT

FOLDER = CHECKOUT / "demo" / "backend"


class Backend(Role):
    """Plain Node; its environment file is its ``.env.production``."""

    name = "backend"

    @property
    def port(self) -> int:
        """Its TCP port on loopback."""
        return self.context.ports["backend"]

    def command(self, env: Mapping[str, str]) -> list[str]:
        """Node on the entry file."""
        return [str(self.context.binaries.node), "src/main.js", *self.extra_arguments(env)]

    def cwd(self) -> Path:
        """Its part of the checkout."""
        return self.context.folder.checkout / "backend"

    def ports(self) -> list[tuple[int, int]]:
        """One."""
        return [(3000, self.port)]

    def version_command(self) -> list[str]:
        """Prints ``v20.20.2``."""
        return [str(self.context.binaries.node), "--version"]

    def path(self) -> list[str]:
        """node and npm."""
        return [str(self.folder / "bin"), str(self.context.binaries.node.parent)]

    def data_folders(self) -> list[tuple[Path, bool]]:
        """The code."""
        return [(self.cwd(), False)]

    def runs_from_checkout(self) -> bool:
        """Its code is the release's."""
        return True

    def exec_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """npm wants a home that it may write to."""
        return {**super().exec_environment(env), "HOME": str(self.folder / "home"), "NO_UPDATE_NOTIFIER": "1"}

    async def prepare(self, env: Mapping[str, str], run: RunHelper) -> None:
        """That home, and the npm that goes with this Node."""
        del env, run
        program, *arguments = self.context.binaries.npm
        self.wrapper("npm", Path(program), arguments)
        make_owned(self.folder / "home", self.context.account)

    async def check_health(self, env: Mapping[str, str], run: RunHelper) -> Verdict:
        """Its health route, which answers 200 in every case, as long as it answers."""
        del run
        status, body = await http_status(self.port, f"/{env.get('API_PREFIX', 'api/v1')}/health")
        return Verdict(status == 200, f"HTTP {status} {body[:500]}")
