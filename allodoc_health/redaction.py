"""What may leave the process, and in which form.

Secrets and patient data never do. A :class:`Redactor` is made for each run; it replaces a value by a token such as
``‹7f3a›`` that is the same wherever the value occurs in this run and means nothing outside it. Known secrets are learnt
from the target's credentials and the services' environments; what only looks like a secret is found by its shape; log
messages keep the words of a technical lexicon and nothing else, so that what is not understood is withheld.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import enum
import hmac
import ipaddress
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote

_Evidence = TypeVar("_Evidence")

WITHHELD = "‹withheld›"

# A name that says that its value is a secret. DATABASE_PASSWORD, JWT_ACCESS_SECRET, API_KEY, STRIPE_TOKEN, …
SECRET_NAME = re.compile(r"(?i)pass|secret|token|credential|private|salt|api_?key|_key$|^key$|dsn|cookie|auth$")
# Values of such variables that are a switch, a duration or a path: as a secret they would be found everywhere.
_HARMLESS_VALUE = re.compile(
    r"(?i)true|false|none|null|undefined|enabled?|disabled?|\d+ ?(?:ms|s|m|min|h|d|days?)|(?:/[\w.-]+)+/?"
)
# The password ends at the last @ before a slash, as in Node's URL class.
_SECRET_URL = re.compile(r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,30}://)([^\s/@:]{0,200}):([^\s/]{1,500})@")

# Shorter values are too likely to be an ordinary part of a message ("yes", "3000").
SHORTEST_SECRET = 5
_SHORTEST_BASE64 = 8
_SHORTEST_LINE = 16  # of a secret of several lines, such as a private key

# Each shape is searched for only in a text that has its fixed part; most have none. Repetitions are bounded, or start
# where a run starts and can't give back what they took: the time a text takes grows with its length and no faster.
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,60}PRIVATE KEY.*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)", re.DOTALL)
_JWT = re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?")
_BEARER = re.compile(
    r"""(?i)(\bbearer[ ]{1,4}|\bauthorization["'\\]{0,4}[ ]?[:=][ ]?["'\\]{0,4}basic[ ]{1,4})([A-Za-z0-9._~+/=-]{6,})"""
)
_HASH = re.compile(
    r"\$(?:2[abxy]?|argon2[a-z]{1,2}|scrypt|pbkdf2[a-z0-9-]{0,12}|[156y])\$[./A-Za-z0-9$=,+-]{10,}"
    r"|SCRAM-SHA-256\$[A-Za-z0-9+/=:$]{10,}"
)
_VENDOR_KEY = re.compile(
    r"\b(?:[prs]k_(?:live|test)_\w{8,}|gh[oprsu]_\w{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,})"
)
_VENDOR_HINTS = ("k_live_", "k_test_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "AKIA", "xox")
_COOKIE = re.compile(r"""(?i)(\b(?:set-)?cookie["'\\]{0,4}[ ]?:[ ]?["'\\]{0,4})([^\s"'\\‹][^\n"'\\]{1,4000})""")
_ASSIGNED = re.compile(
    r"""(?ix)
    (?P<before>
      (?:pass(?:word|wd|phrase)?+|pwd|secret|token|credentials?+|authorization|cookie|api[_-]?key|(?:private|access)[_-]?key)
      (?![_-]?(?:encryption|[a-z]{0,9}expir|ttl|lifetime|length|algorithm|limit|count|timeout|[a-z]{0,20}(?:error|exception)))
      [\w-]{0,40} ["'\\]{0,4} [ \t]{0,4} [=:] (?!:) [ \t]{0,4}
      (?:["'\\]{0,4} (?:bearer|basic|digest) [ ]{1,4})?
    )
    (?:
      (?P<escaped>\\{1,3}["'])(?P<inner>[^"'\n]{0,4000})
    | (?P<quote>["'])(?P<quoted>(?:(?!(?P=quote))[^\\\n]|\\.){0,4000})
    | (?P<value>‹[0-9a-f]{6}›(?![^\s"',;&}\\)\]]) | [^\s"',;&}\\]{3,4000})
    )
    """
)
_ASSIGNED_HINTS = ("pass", "pwd", "secret", "token", "credential", "authorization", "cookie", "key")
_SAYS_NOTHING = re.compile(r"‹[0-9a-f]{6}›|‹withheld›|null|undefined|true|false|\$\d+|\*+|\s*")
_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,256}?(?:@|%40)[\w-]{1,63}(?:\.[\w-]{1,63})+")
_IPV4 = re.compile(r"(?<!\d)(?<!\d\.)(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])\w*+(?::[\w.]*+){2,40}+(?:%\w+)?")
_ANSI = re.compile(r"\x1b(?:\[[0-9;:?<=>]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\))")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

_UUID = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
# PostgreSQL puts an identifier in double quotes after these nouns, and a user's value after others.
_NOUNS = frozenset(
    "relation database function sequence extension parameter constraint column schema table index type view trigger "  # noqa: SIM905
    "slot publication subscription tablespace language partition".split()
)
# After these it may also be what a person typed into a form, so the words of the name have to be known.
_ACCOUNTS = frozenset({"role", "user"})
_BEFORE_QUOTE = re.compile(r"(\w+)(:?) \Z")
_IDENTIFIER = re.compile(r"[a-z_][A-Za-z0-9_.$]{0,62}|(?:UQ|FK|PK|IDX|CHK|REL|XCL|DF)_[0-9a-f]{16,40}")
_SQL_IDENTIFIER = re.compile(r'"[A-Za-z_][A-Za-z0-9_.$]{0,62}"')
_STAMP = re.compile(  # of a log line, where the service writes it; any other date may be that of a birth
    r"\A(?:\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z| UTC)?"
    r"|\d{1,7}:[A-Z] \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d{3}"
    r"|\[Nest\] \d{1,7}  - \d\d/\d\d/\d{4}, \d{1,2}:\d\d:\d\d [AP]M)(?!\w)"
)
_KINDS = r"""
      (?P<word>[^\W\d]\w*+(?:['’][^\W\d_]+)?)
    | (?P<known>‹(?:[0-9a-f]{6}|withheld)›)           # a token of ours
    | (?P<quoted>"[^"]*" | '[^']*' | `[^`]*`)
    | (?P<host>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b)
    | (?P<date>\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:T[\d:.,]+Z?)?|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d\d(?![\d.])))
    | (?P<phone>(?<![\d.])(?:\+\d|0\d)(?:[ ()/-]{0,2}\d){5,})
    | (?P<amount>\d{1,12}(?:\.\d{1,6})?\ ?(?:ms|us|µs|ns|s|min|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB|bytes|%)(?!\w))
    | (?P<number>\d[\d.,:]*(?!\w))
    | (?P<other>\w+)
"""
_RARE_KINDS = r"""
      (?P<key>(?<=\)=\().+?(?=\)\ (?:already|is\ |conflicts)|\Z))
    | (?P<row>(?<=row\ contains\ \().+?(?=\)\.?\Z|\Z))
    | (?P<host6>(?<![\w:])(?=[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{1,4}){0,7}::|(?:[0-9a-fA-F]{1,4}:){7})
      [0-9a-fA-F:]{2,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?:%\w{1,16})?(?![\w:]|\.\d))
    |
"""
_WORD = re.compile(_KINDS, re.VERBOSE | re.DOTALL)
_WORD_OR_RARE = re.compile(_RARE_KINDS + _KINDS, re.VERBOSE | re.DOTALL)
_ROUTINE_NUMBER = 5  # digits: a port, a status, a count; longer ones may be a person's number
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|_+")
_RUN = re.compile(r"[A-Za-z0-9]{4,}")
_REMEMBERED = 50_000  # words and tokens, so that a long run does not grow


def new_key() -> bytes:
    """What makes the tokens of one run: those of another run for the same values are others."""
    return secrets.token_bytes(16)


class Redactor:
    """Replaces what may not leave the process. One for each run: tokens of different runs can't be compared."""

    def __init__(self, key: bytes | None = None, *, mask_addresses: bool = True) -> None:
        self._key = key or new_key()
        self._secrets: dict[str, str] = {}
        self._fragments: dict[str, list[str]] = {}
        self._learning = threading.Lock()  # probes learn while others redact
        self._public: set[str] = set()
        self._mask_addresses = mask_addresses
        self._words: dict[str, str] = {}

    def allow(self, *names: str) -> None:
        """Declare names that are shown on purpose (a database, a role): they are never taken for a secret."""
        self._public.update(name for name in names if name)
        for name in self._public & self._secrets.keys():
            del self._secrets[name]
        self._words.clear()

    def learn(self, *values: str) -> None:
        """Remember secrets, so that they are replaced wherever they occur, also percent-encoded, as JSON, in base64."""
        for value in values:
            if value in self._public or value.strip() in self._public:
                continue
            for secret in dict.fromkeys((value, value.strip())):
                if len(secret.strip()) < SHORTEST_SECRET:
                    continue
                with self._learning:
                    for form in _forms(secret):
                        if form not in self._public and form not in self._secrets:
                            self._secrets[form] = self.token(secret)
                            self._remember_fragment(form)

    def _remember_fragment(self, form: str) -> None:
        """File a form under a part of it, which most forms of a secret have in common: one search for all of them."""
        for fragment, forms in reversed(self._fragments.items()):
            if fragment in form:
                forms.append(form)
                return
        self._fragments[max(_RUN.findall(form), key=len, default=form)] = [form]

    def learn_environment(self, environment: Mapping[str, str]) -> None:
        """Remember the values of those variables whose name or shape says that they are secret."""
        for name, value in environment.items():
            if SECRET_NAME.search(name) and not _HARMLESS_VALUE.fullmatch(value.strip()):
                self.learn(value)
            for match in _SECRET_URL.finditer(value):
                self.learn(match.group(3), unquote(match.group(3)))

    def token(self, value: str) -> str:
        """The token that stands for a value in this run."""
        return f"‹{hmac.digest(self._key, value.encode('utf-8', 'replace'), 'sha256').hex()[:6]}›"

    def text(self, text: str) -> str:
        """A text of ours (a setting, an error) without known secrets and without what has the shape of one."""
        text = self._without_known(_clean(text))
        if "-----BEGIN" in text:
            text = _PEM.sub(self._replace, text)
        if "://" in text:
            text = _SECRET_URL.sub(lambda match: f"{match[1]}{match[2]}:{self._mask(match[3])}@", text)
        if "eyJ" in text:
            text = _JWT.sub(self._replace, text)
        if "$" in text:
            text = _HASH.sub(self._replace, text)
        if any(hint in text for hint in _VENDOR_HINTS):
            text = _VENDOR_KEY.sub(self._replace, text)
        lower = text.lower()
        if "bearer" in lower or "basic" in lower:
            text = _BEARER.sub(lambda match: match[1] + self._mask(match[2]), text)
        if "cookie" in lower:
            text = _COOKIE.sub(lambda match: match[1] + self._mask(match[2]), text)
        if (":" in text or "=" in text) and any(hint in lower for hint in _ASSIGNED_HINTS):
            text = _ASSIGNED.sub(self._replace_assigned, text)
        if "@" in text or "%40" in text:
            text = _EMAIL.sub(self._replace, text)
        if "::" in text or text.count(":") >= 7:
            text = _IPV6.sub(self._replace_ipv6, text)
        if text.count(".") >= 3:
            text = _IPV4.sub(lambda match: self.address(match.group()), text)
        return text

    def knows(self, text: str) -> bool:
        """Whether a secret that was learnt stands in a text."""
        return self._without_known(text) != text

    def _without_known(self, text: str) -> str:
        """The text with a token for each known secret; for one token where two of them overlap."""
        with self._learning:
            spans = sorted(
                (start, -len(secret), secret)
                for forms in [forms for fragment, forms in self._fragments.items() if fragment in text]
                for secret in forms
                if secret in self._secrets
                for start in _occurrences(secret, text)
            )
        if not spans:
            return text
        parts: list[str] = []
        position = end = 0
        longest = ""
        for start, _, secret in spans:
            if longest and start >= end:
                parts.append(self._secrets[longest])
                position, longest = end, ""
            if not longest:
                parts.append(text[position:start])
            if len(secret) > len(longest):
                longest = secret
            end = max(end, start + len(secret))
        return "".join((*parts, self._secrets[longest], text[end:]))

    def _mask(self, value: str) -> str:
        return value if _SAYS_NOTHING.fullmatch(value) else self.token(value)

    def _replace(self, match: re.Match[str]) -> str:
        return self.token(match.group())

    def _replace_assigned(self, match: re.Match[str]) -> str:
        before = match["before"]
        if match["value"] is not None:
            return before + self._mask(match["value"])
        if match["quote"] is not None:
            return before + match["quote"] + self._mask(match["quoted"])
        inner = match["inner"].rstrip("\\")
        return before + match["escaped"] + self._mask(inner) + match["inner"][len(inner) :]

    def _replace_ipv6(self, match: re.Match[str]) -> str:
        before, rest = "", match.group()
        while rest.count(":") >= 2:  # what stands before may be a name, as in "client:2001:db8::1"
            for address in (rest, rest.rstrip("."), rest.rstrip(".:")):
                masked = self.address(address)
                if masked != address:
                    return before + masked + rest[len(address) :]
                if _is_address(address):
                    return match.group()
            if len(before) > 100:
                break
            name, _, rest = rest.partition(":")
            before += name + ":"
        return match.group()

    def address(self, address: str) -> str:
        """A client address: public ones are masked, those of the stack's own networks are not."""
        parsed = _parse_address(address)
        return self.token(address) if parsed is not None and parsed.is_global and self._mask_addresses else address

    def message(self, line: str) -> str:
        """A log message with the words of the lexicon and nothing else: everything unknown becomes a token.

        >>> Redactor(b"k").message("duplicate key value violates constraint: Key (name)=(Erika) already exists")
        'duplicate key value violates constraint: Key (name)=(‹a9ac8e›) already exists'
        """
        line = self.text(line)
        stamp = _STAMP.match(line)
        start = stamp.end() if stamp else 0
        if "-" in line:
            line = line[:start] + _UUID.sub(self._replace, line[start:])
        rare = ")=(" in line or "row contains (" in line or "::" in line or line.count(":") >= 7
        words = _WORD_OR_RARE if rare else _WORD
        return line[:start] + words.sub(self._replace_word, line[start:])

    def _replace_word(self, match: re.Match[str]) -> str:
        text = match.group()
        kind = match.lastgroup
        if kind == "word":
            known = self._words.get(text)
            if known is None:
                if len(self._words) >= _REMEMBERED:
                    self._words.clear()
                known = self._words[text] = text if text in self._public or is_technical(text) else self.token(text)
            return known
        if kind in ("known", "host", "amount"):
            return text
        if kind == "quoted":
            return self._quoted(match)
        if kind == "number":
            whole, _, fraction = text.rstrip(".,:").partition(".")
            routine = whole.isdigit() and len(whole) <= _ROUTINE_NUMBER and (fraction.isdigit() and len(fraction) <= 3)
            return text if routine or sum(map(str.isdigit, text)) <= _ROUTINE_NUMBER else self.token(text)
        if kind == "host6":
            parsed = _parse_address(text)
            return text if parsed is not None and not (parsed.is_global and self._mask_addresses) else self.token(text)
        if kind in ("key", "row"):
            return ", ".join(map(self._mask, text.split(", "))) if text else text
        return self.token(text)

    def _quoted(self, match: re.Match[str]) -> str:
        """Identifiers stay where PostgreSQL quotes them, and the words of a request where nginx does."""
        text = match.group()
        inner = text[1:-1]
        if inner in self._public or _SAYS_NOTHING.fullmatch(inner):
            return text
        start = match.start()
        before = _BEFORE_QUOTE.search(match.string, max(0, start - 40), start)
        if before and text[0] == '"':
            noun = before[1].lower()
            if before[2]:
                if noun in ("upstream", "request"):
                    return f'"{_WORD.sub(self._replace_word, inner)}"'
            elif noun in _ACCOUNTS:
                if is_technical(inner):
                    return text
            elif noun in _NOUNS and (_IDENTIFIER.fullmatch(inner) or is_technical(inner)):
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
            text = sql[token.start : token.end + 1]
            if token.name in ("SQL_COMMENT", "C_COMMENT"):
                continue  # and the gap it leaves is a space
            if token.start > position and parts:
                parts.append(" ")
            if token.name in ("SCONST", "ICONST", "FCONST", "BCONST", "XCONST", "USCONST"):
                parts.append("?")
            elif text.startswith('"') and text[1:-1] not in self._public and not _SQL_IDENTIFIER.fullmatch(text):
                parts.append(self.token(text))
            else:
                parts.append(text)
            position = token.end + 1
        return self._without_known(_clean("".join(parts).strip()))

    def fingerprint(self, value: str) -> str:
        """What may be said of a secret: how long it is, and a token to compare it with others by."""
        return f"{len(value)} characters, {self.token(value)}"

    def evidence(self, evidence: _Evidence) -> _Evidence:
        """The same record with every text in it passed through :meth:`text`, however deep it stands."""
        return self._walk(evidence)  # type: ignore[no-any-return]  # _walk keeps the type it is given

    def _walk(self, value: Any) -> Any:
        if isinstance(value, enum.Enum):  # ours, and written in the source
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes | bytearray):
            return type(value)(self.text(value.decode("utf-8", "replace")).encode("utf-8", "replace"))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = copy.copy(value)  # and not replace(), which can't set a field that __init__ does not take
            for field in dataclasses.fields(value):
                if hasattr(value, field.name):
                    object.__setattr__(changed, field.name, self._walk(getattr(value, field.name)))
            return changed
        if isinstance(value, Mapping):
            walked = {self._walk(key): self._walk(item) for key, item in value.items()}
            return MappingProxyType(walked) if isinstance(value, MappingProxyType) else walked
        if isinstance(value, tuple):
            items = (self._walk(item) for item in value)
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, set | frozenset):
            return type(value)(self._walk(item) for item in value)
        return value


def _clean(text: str) -> str:
    """The text without what would steer a terminal."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub("�", _ANSI.sub("", text))


def _forms(secret: str) -> Iterator[str]:
    """The ways in which a secret may be written in a text."""
    raw = secret.encode("utf-8", "replace")
    forms = {secret, secret.replace("'", "''")}
    forms.update(line.strip() for line in secret.splitlines() if len(line.strip()) >= _SHORTEST_LINE)
    for safe in ("", "/", "!'()*", "-._~!$&'()*+,;=:@/"):
        encoded = quote(raw, safe=safe)
        forms.update((encoded, re.sub("%..", lambda match: match.group().lower(), encoded)))
    forms.add(quote_plus(raw))
    for ascii_only in (True, False):
        quoted = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        forms.update((quoted, quoted.replace("/", "\\/"), json.dumps(quoted, ensure_ascii=ascii_only)[1:-1]))
    if len(secret) >= _SHORTEST_BASE64:
        for shift in range(3):  # as it looks alone, or in the middle of something longer such as "user:password"
            coded = base64.b64encode(b"\0" * shift + raw).decode()
            coded = coded[(0, 2, 3)[shift] : len(coded) - (0, 3, 2)[(shift + len(raw)) % 3]]
            forms.update((coded, coded.replace("+", "-").replace("/", "_")))
    forms.update([_clean(form) for form in forms])
    return (form for form in forms if len(form.strip()) >= SHORTEST_SECRET)


def _occurrences(part: str, text: str) -> Iterator[int]:
    start = text.find(part)
    while start >= 0:
        yield start
        start = text.find(part, start + 1)


@lru_cache(maxsize=4096)
def _parse_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        if re.fullmatch(r"[\d.]+", address) and re.search(r"(?<!\d)0\d", address):
            return _parse_address(re.sub(r"(?<!\d)0+(?=\d)", "", address))
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _is_address(text: str) -> bool:
    return _parse_address(text) is not None


def is_technical(word: str) -> bool:
    """Whether the lexicon has the word, or all the words that a name such as AccessShareLock or pg_wal is made of."""
    words = lexicon()
    lower = word.lower().replace("’", "'")
    if lower in words or (lower.endswith("'s") and lower[:-2] in words):
        return True
    if not word.isascii() or len(word) > 100:
        return False
    pieces: list[str] = _PIECE.findall(word)
    if len(pieces) < 2 or "".join(pieces) != word or sum(map(str.isdigit, word)) > _ROUTINE_NUMBER:
        return False
    if pieces[0] == "v" and len(pieces) == 2 and pieces[1].isdigit():
        return True
    return all(piece.isdigit() or piece[0] == "_" or (len(piece) > 1 and piece.lower() in words) for piece in pieces)


@cache
def lexicon() -> frozenset[str]:
    """The words that a log message may keep: those of PostgreSQL's, Redis', nginx's and Node's own messages."""
    text = files("allodoc_health").joinpath("lexicon.txt").read_text("utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())
