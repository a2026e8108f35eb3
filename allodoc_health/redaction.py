"""What may leave the process, and in which form.

Secrets and patient data never do. A :class:`Redactor` is made for each run; it replaces a value by a token such as
``‹7f3a›`` that is the same wherever the value occurs in this run and means nothing outside it. Known secrets are learnt
from the target's credentials and the services' environments; what only looks like a secret is found by its shape; log
messages keep the words of a technical lexicon and nothing else, so that what is not understood is withheld.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

_Evidence = TypeVar("_Evidence")

WITHHELD = "‹withheld›"

# A name that says that its value is a secret. DATABASE_PASSWORD, JWT_ACCESS_SECRET, API_KEY, STRIPE_TOKEN, …
SECRET_NAME = re.compile(
    r"(?i)pass|secret|token|credential|private|salt|api_?key|_key$|^key$|dsn|cookie|auth$|requirepass"
)
_SECRET_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)([^\s/@:]*):([^\s/@]+)@")

# Shorter values are too likely to be an ordinary part of a message ("yes", "3000").
SHORTEST_SECRET = 5

_SHAPES = re.compile(
    r"""
      (?P<jwt>\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?)
    | (?P<bearer>(?<=[Bb]earer\ )[A-Za-z0-9._~+/=-]{6,})
    | (?P<bcrypt>\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{10,})
    | (?P<email>[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)
    | (?P<pem>-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*-----|\Z))
    | (?P<assigned>(?<![A-Za-z])(?:[A-Za-z_]*(?:password|passwd|secret|token|api_?key)[A-Za-z_]*)["']?\s*[=:]\s*["']?)(?P<value>[^\s"',;&}]{3,})
    | (?P<address>(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]))
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_UUID = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
# PostgreSQL puts an identifier in double quotes after these nouns, and a user's value after others.
_NOUNS = [
    "relation",
    "database",
    "function",
    "sequence",
    "extension",
    "parameter",
    "constraint",
    "column",
    "schema",
    "table",
    "index",
    "role",
    "user",
    "type",
    "view",
]
_WORD = re.compile(
    r"""
      (?P<known>‹[^›]*›)                              # a token of ours
    | (?P<ident>(?:"""
    + "|".join(rf"(?<={noun}\ )" for noun in _NOUNS)
    + r""")"[a-z_][a-z0-9_.]{0,62}")
    | (?P<quoted>"[^"]*" | '[^']*' | `[^`]*`)
    | (?P<error>\b[A-Z][A-Za-z]*(?:Error|Exception|Warning)\b)
    | (?P<code>\b(?:E[A-Z]{4,}|[A-Z][A-Z0-9]*_[A-Z0-9_]+)\b)
    | (?P<host>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b)
    | (?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)
    | (?P<number>\d[\d.,:]*)
    | (?P<other>\w+)
    """,
    re.VERBOSE,
)
_ROUTINE_NUMBER = 5  # digits: a port, a status, a count; longer ones may be a person's number


class Redactor:
    """Replaces what may not leave the process. One for each run: tokens of different runs can't be compared."""

    def __init__(self, key: bytes | None = None, *, mask_addresses: bool = True) -> None:
        self._key = key or secrets.token_bytes(16)
        self._secrets: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._public: set[str] = set()
        self._mask_addresses = mask_addresses

    def allow(self, *names: str) -> None:
        """Declare names that are shown on purpose (a database, a role): they are never taken for a secret."""
        self._public.update(name for name in names if name)

    def learn(self, *values: str) -> None:
        """Remember secrets, so that they are replaced wherever they occur, also percent-encoded or as JSON."""
        for value in values:
            for form in {value, value.strip()}:
                if len(form) >= SHORTEST_SECRET and form not in self._public and form not in self._secrets:
                    self._secrets[form] = self.token(form)
                    self._pattern = None

    def learn_environment(self, environment: Mapping[str, str]) -> None:
        """Remember the values of those variables whose name or shape says that they are secret."""
        for name, value in environment.items():
            if SECRET_NAME.search(name):
                self.learn(value)
            for match in _SECRET_URL.finditer(value):
                self.learn(match.group(3))

    def token(self, value: str) -> str:
        """The token that stands for a value in this run."""
        return f"‹{hmac.new(self._key, value.encode('utf-8', 'replace'), hashlib.sha256).hexdigest()[:6]}›"

    def text(self, text: str) -> str:
        """A text of ours (a setting, an error) without known secrets and without what has the shape of one."""
        text = _UNPRINTABLE.sub("�", _ANSI.sub("", text))
        if self._secrets:
            if self._pattern is None:
                longest_first = sorted(self._secrets, key=len, reverse=True)
                self._pattern = re.compile("|".join(re.escape(secret) for secret in longest_first))
            text = self._pattern.sub(lambda match: self._secrets[match.group()], text)
        text = _SECRET_URL.sub(lambda match: f"{match.group(1)}{match.group(2)}:{self.token(match.group(3))}@", text)
        return _SHAPES.sub(self._replace_shape, text)

    def _replace_shape(self, match: re.Match[str]) -> str:
        if match.group("assigned"):
            value = match.group("value")
            return match.group("assigned") + (value if value.startswith("‹") else self.token(value))
        if match.group("address"):
            return self.address(match.group("address"))
        return self.token(match.group())

    def address(self, address: str) -> str:
        """A client address: public ones are masked, those of the stack's own networks are not."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return address
        return self.token(address) if parsed.is_global and self._mask_addresses else address

    def message(self, line: str) -> str:
        """A log message with the words of the lexicon and nothing else: everything unknown becomes a token.

        >>> Redactor(b"k").message("duplicate key value violates constraint: Key (name)=(Erika) already exists")
        'duplicate key value violates constraint: Key (name)=(‹c53ee9›) already exists'
        """
        line = _UUID.sub(lambda match: self.token(match.group()), self.text(line))
        return _WORD.sub(self._replace_word, line)

    def _replace_word(self, match: re.Match[str]) -> str:
        text = match.group()
        kind = match.lastgroup
        if kind in ("known", "ident", "error", "code", "host"):
            return text
        if kind == "word" and text.lower() in lexicon():
            return text
        if kind == "number" and sum(map(str.isdigit, text)) <= _ROUTINE_NUMBER:
            return text
        return self.token(text)

    def statement(self, sql: str) -> str:
        """A SQL statement without literals and comments; what PostgreSQL's own scanner can't read is withheld."""
        from pglast.parser import ParseError, scan

        try:
            tokens = scan(sql)
        except (ParseError, UnicodeError, ValueError):
            first = sql.split(None, 1)[0] if sql.split() else ""
            return f"{first.upper()} … {WITHHELD}" if first.lower() in lexicon() else WITHHELD
        parts: list[str] = []
        position = 0
        for token in tokens:
            if token.start > position and parts:
                parts.append(" ")
            if token.name in ("SQL_COMMENT", "C_COMMENT"):
                pass
            elif token.name in ("SCONST", "ICONST", "FCONST", "BCONST", "XCONST", "USCONST"):
                parts.append("?")
            else:
                parts.append(sql[token.start : token.end + 1])
            position = token.end + 1
        return self.text("".join(parts).strip())

    def fingerprint(self, value: str) -> str:
        """What may be said of a secret: how long it is, and a token to compare it with others by."""
        return f"{len(value)} characters, {self.token(value)}"

    def evidence(self, evidence: _Evidence) -> _Evidence:
        """The same record with every text in it passed through :meth:`text`, however deep it stands."""
        return self._walk(evidence)  # type: ignore[no-any-return]  # _walk keeps the type it is given

    def _walk(self, value: Any) -> Any:
        if type(value) is str:
            return self.text(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = {}
            for field in dataclasses.fields(value):
                old = getattr(value, field.name)
                new = self._walk(old)
                if new is not old and new != old:
                    changed[field.name] = new
            return dataclasses.replace(value, **changed) if changed else value
        if isinstance(value, Mapping):
            return {self._walk(key): self._walk(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(self._walk(item) for item in value)
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        return value


@cache
def lexicon() -> frozenset[str]:
    """The words that a log message may keep: those of PostgreSQL's, Redis', nginx's and Node's own messages."""
    text = files("allodoc_health").joinpath("lexicon.txt").read_text("utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())
