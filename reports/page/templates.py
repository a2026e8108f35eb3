"""The templates, and what makes them quick and safe."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket

FOLDER = Path(__file__).parent


class _Compiled(jinja2.BytecodeCache):
    """Compiled templates beside their sources, as Python keeps its own; to no effect where nothing can be written."""

    folder = FOLDER / "__pycache__"

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take what an earlier run compiled, if it is of this very source and version."""
        with suppress(OSError), (self.folder / bucket.key).open("rb") as file:
            bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep it for the next run."""
        if sys.dont_write_bytecode:
            return
        unfinished = self.folder / f"{bucket.key}.{os.getpid()}"
        with suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            unfinished.write_bytes(bucket.bytecode_to_string())
            unfinished.replace(self.folder / bucket.key)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        bytecode_cache=_Compiled(),
    )


def template(name: str) -> jinja2.Template:
    """A template of this folder. What is put into it is escaped, unless the template itself says otherwise."""
    return _environment().get_template(name)


def source(name: str) -> str:
    """A stylesheet or script of this folder."""
    return (FOLDER / name).read_text("utf-8")


def content_hash(text: str) -> str:
    """The source by which a Content-Security-Policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
