"""What leaves the process: no secret, no name of a person, and still messages that one can read."""

from __future__ import annotations

import base64
import json
import re
import string
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allodoc_health.redaction import WITHHELD, Redactor, lexicon

SECRET = 's3cr3t/"Pa\\ss (wörd)+=&%??>>'
TOKEN = re.compile(r"‹[0-9a-f]{6}›")


def redactor(*known: str) -> Redactor:
    """A redactor with a fixed key that knows these secrets."""
    made = Redactor(b"a key for tests")
    made.learn(*known)
    return made


# Known secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame", ["{}", "{} after", "before {}", "before {} after", "x{}y", "a={};b={}", "({})", "{}{}"]
)
def test_known_secret_is_replaced_in_any_position(frame: str) -> None:
    """A known secret becomes its token wherever it stands."""
    known = redactor("correct-horse")
    assert known.text(frame.replace("{}", "correct-horse")) == frame.replace("{}", known.token("correct-horse"))


FORMS = {
    "raw": SECRET,
    "path": quote(SECRET),
    "percent": quote(SECRET, safe=""),
    "lower-percent": re.sub("%..", lambda match: match.group().lower(), quote(SECRET, safe="")),
    "javascript": quote(SECRET, safe="!'()*"),
    "form": quote_plus(SECRET),
    "json": json.dumps(SECRET),
    "json-unicode": json.dumps(SECRET, ensure_ascii=False),
    "json-in-json": json.dumps(json.dumps({"value": SECRET})),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64-url": base64.urlsafe_b64encode(SECRET.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_known_secret_is_replaced_in_every_form(form: str) -> None:
    """Percent-encoded, as JSON and in base64 a secret is still a secret, and has the same token."""
    known = redactor(SECRET)
    result = known.text(f"value {form} end")
    assert known.token(SECRET) in result
    for part in ("s3cr3t", "Pa", "rd", base64.b64encode(SECRET.encode()).decode()[:12]):
        assert part not in TOKEN.sub("", result)


@pytest.mark.parametrize("user", ["", "a", "ab", "abc"])
def test_known_secret_is_found_inside_longer_base64(user: str) -> None:
    """Credentials as HTTP's Basic scheme sends them don't show the password, whatever stands before it."""
    coded = base64.b64encode(f"{user}:correct-horse-battery".encode()).decode()
    result = redactor("correct-horse-battery").text(f"sent {coded}")
    shown = TOKEN.sub("", result.removeprefix("sent "))
    assert TOKEN.search(result)
    assert b"horse" not in base64.b64decode(shown + "=" * (-len(shown) % 4))


def test_overlapping_secrets_leave_nothing() -> None:
    """Where two secrets overlap, both are gone."""
    result = redactor("first-secret-xyz", "xyz-second-one", "second").text("a first-secret-xyz-second-one b")
    assert TOKEN.sub("T", result) == "a T b"


def test_a_private_key_is_known_line_by_line() -> None:
    """Logs are split into lines, so each line of a key is a secret."""
    known = redactor(
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END PRIVATE KEY-----"
    )
    assert "ASCBKcwgg" not in known.text("line AQEFAASCBKcwggSjAgEAAoIB")


def test_short_values_and_public_names_are_not_secrets() -> None:
    """A value too short to be told from a word stays, and so does a name shown on purpose, whenever it is declared."""
    known = redactor("yes", "allodoc", "     ")
    known.allow("allodoc", "reporting")
    known.learn("reporting")
    assert known.text("yes      allodoc reporting") == "yes      allodoc reporting"


def test_environment() -> None:
    """Values of variables that are called a secret or hold one are learnt; a switch, a duration or a path is not."""
    known = Redactor(b"k")
    known.learn_environment(
        {
            "JWT_ACCESS_SECRET": "hunter-two-hunter",
            "DATABASE_URL": "postgres://app:p%40ssw0rd@db:5432/allodoc",
            "TOKEN_CHECK": "false",
            "JWT_TOKEN_EXPIRY": "900000 ms",
            "DB_PASSWORD_FILE": "/run/secrets/db",
            "NODE_ENV": "production",
        }
    )
    text = "hunter-two-hunter p%40ssw0rd p@ssw0rd false 900000 ms /run/secrets/db production"
    assert TOKEN.sub("T", known.text(text)) == "T T T false 900000 ms /run/secrets/db production"


# Shapes --------------------------------------------------------------------------------------------------------------

SHAPES = {
    "jwt": ("got {} there", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbU"),
    "jwt without signature": ("jwt={}", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0."),
    "bearer": ("Authorization: Bearer {}", "abcdef0123456789"),
    "bearer in lower case": ("authorization: bearer {} x", "abc.def-ghi"),
    "basic": ("Authorization: Basic {}", "YXBwOnNlY3JldA=="),
    "bcrypt": ("hash {}", "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"),
    "argon2": ("hash {}", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub"),
    "scram": ("hash {}", "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$c3RvcmVk:c2VydmVy"),
    "stripe": ("key {}", "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"),
    "e-mail": ("to {}, sent", "erika.mustermann+x@mail.example.com"),
    "e-mail with an umlaut": ("to {}", "jürgen@müller.example"),
    "e-mail in a URL": ("/users?email={}&x=1", "erika%40example.com"),
    "url": ("at postgres://app:{}@db:5432/allodoc", "p4ss:w0rd"),
    "url without a user": ("at redis://:{}@redis:6379", "hunter22"),
    "url, @ in the password": ("at redis://app:{}@redis:6379", "hun@ter22"),
    "pem": ("key {}", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"),
    "pem, cut off": ("key {}", "-----BEGIN PRIVATE KEY-----\nMIIEow\nIBAA"),
    "password=": ("password={} x", "hunter2"),
    "PASSWORD: ": ("DB_PASSWORD: {}", "hunter2"),
    "json": ('{"user":1,"password":"{}","x":1}', "hunter2"),
    "json with blanks": ('{"password": "{}", "x":1}', "my, other; secret"),
    "json with a quote": ('{"apiKey":"{}"}', 'abc\\"def'),
    "json in json": ('"{\\"refreshToken\\":\\"{}\\",\\"x\\":1}"', "abc def"),
    "inspect": ("{ password: '{}', x: 1 }", "hunter 2"),
    "cookie": ("Cookie: {}", "session=abcdef; other=ghijkl"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_looks_like_a_secret_is_replaced(name: str) -> None:
    """A secret is found by its shape, too, and what stands around it stays."""
    frame, secret = SHAPES[name]
    result = Redactor(b"k").text(frame.replace("{}", secret))
    before, after = frame.split("{}") if frame.count("{}") == 1 else ("", "")
    assert result.startswith(before)
    assert result.endswith(after)
    assert TOKEN.fullmatch(result[len(before) : len(result) - len(after)])
    for part in re.findall(r"\w{4,}", secret):
        assert part not in TOKEN.sub("", result.removeprefix(before).removesuffix(after))


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed",
        "password_encryption = scram-sha-256",
        "TokenExpiredError: jwt expired",
        "JsonWebTokenError: invalid signature",
        "password: null",
        "https://allodoc.example/health?check=1",
        "postgres://app@db:5432/allodoc",
        "10:20:30 aa:bb:cc:dd:ee:ff v8::internal::Heap",
        "version 16.4, 3.11.7",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Our own texts stay as they are."""
    assert Redactor(b"k").text(text) == text


def test_a_known_secret_keeps_its_token_inside_a_shape() -> None:
    """The password of a URL or a setting has the token that it has everywhere else, so that they can be compared."""
    known = redactor("hunter22")
    token = known.token("hunter22")
    assert known.text("redis://:hunter22@redis") == f"redis://:{token}@redis"
    assert known.text("password=hunter22") == f"password={token}"
    assert Redactor(b"a key for tests").text("redis://:hunter22@redis") == f"redis://:{token}@redis"


PUBLIC = ["8.8.8.8", "93.184.216.34", "2001:4860:4860::8888", "2a00:1450:4001:81c:0:0:0:200e", "::ffff:8.8.8.8"]
PRIVATE = ["127.0.0.1", "10.0.0.7", "172.18.0.5", "192.168.1.20", "::1", "fe80::1", "fd00:1:2::7", "::ffff:10.0.0.1"]
AROUND = ["{}", "from {}.", "client: {}, server", "[{}]:5432", "({})", "client:{} x"]


@pytest.mark.parametrize("frame", AROUND)
@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_masked(address: str, frame: str) -> None:
    """A patient's address does not leave the process, and is one token for one address."""
    one = Redactor(b"k")
    text = frame.format(address)
    assert one.text(text) == frame.format(one.token(address))
    assert address not in one.message(text)
    assert Redactor(b"k", mask_addresses=False).text(text) == text


@pytest.mark.parametrize("frame", AROUND)
@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_stay(address: str, frame: str) -> None:
    """The addresses of the stack's own networks help and hurt nobody."""
    one = Redactor(b"k")
    assert one.text(frame.format(address)) == frame.format(address)
    assert one.address(address) == address
    if "client:{}" not in frame:
        assert address in one.message(frame.format(address))


def test_control_characters_are_removed() -> None:
    """Nothing steers the terminal that shows a report, and nothing is hidden by what can't be seen."""
    text = "\x1b[31;1mred\x1b[0m \x1b]8;;http://x\x07link\x1b[?25h \x00\x07\r\u202ertl\u200b\x9b31m\ud800 tab\tline\n"
    assert Redactor(b"k").text(text) == "red link ����rtl��31m� tab\tline\n"


def test_a_secret_is_found_behind_colours() -> None:
    """Colours inside a secret don't hide it."""
    assert "horse" not in redactor("correct-horse").text("correct-\x1b[31mhorse\x1b[0m")


# Messages ------------------------------------------------------------------------------------------------------------

MESSAGES = """
duplicate key value violates unique constraint "patients_email_key"
relation "patients" does not exist
column "first_name" of relation "patients" does not exist
canceling statement due to statement timeout
canceling statement due to lock timeout
deadlock detected
terminating connection due to idle-in-transaction timeout
terminating connection due to administrator command
remaining connection slots are reserved for roles with the SUPERUSER attribute
sorry, too many clients already
could not serialize access due to concurrent update
database system was not properly shut down; automatic recovery in progress
database system is ready to accept connections
password authentication failed for user "postgres"
checkpoint starting: time
checkpoint complete: wrote 42 buffers (0.3%); 0 WAL files added, 0 removed, 1 recycled; write=4.123 s, total=4.130 s
automatic vacuum of table "allodoc.public.appointments": index scans: 1
unexpected EOF on client connection with an open transaction
insert or update on table "appointments" violates foreign key constraint "FK_97672ac88f789774dd47f7c8be3"
null value in column "doctor_id" of relation "appointments" violates not-null constraint
Consider increasing the configuration parameter "max_wal_size".
process 123 still waiting for ShareLock on transaction 742 after 1000.123 ms
could not open extension control file: No such file or directory
OOM command not allowed when used memory > 'maxmemory'.
MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.
NOAUTH Authentication required.
LOADING Redis is loading the dataset in memory
Ready to accept connections tcp
Background saving terminated with success
connect() failed (111: Connection refused) while connecting to upstream, client: 172.18.0.1, server: localhost, \
request: "GET /api/appointments HTTP/1.1", upstream: "http://172.18.0.5:3000/api/appointments"
upstream timed out (110: Connection timed out) while reading response header from upstream
client intended to send too large body: 10485761 bytes
upstream prematurely closed connection while reading response header from upstream
worker_connections are not enough
FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
Error: connect ECONNREFUSED 127.0.0.1:5432
Unhandled promise rejection: TypeError: Cannot read properties of undefined
TokenExpiredError: jwt expired
JsonWebTokenError: invalid signature
QueryFailedError: relation "appointments" does not exist
Unable to connect to the database. Retrying (1)...
Nest application successfully started
Mapped {/api/appointments, GET} route
ThrottlerException: Too Many Requests
timeout exceeded when trying to connect
getaddrinfo EAI_AGAIN redis
Out of memory: Killed process 4242 (node) total-vm:1234kB, anon-rss:1024kB
Connection terminated unexpectedly
""".strip().splitlines()


@pytest.mark.parametrize("message", MESSAGES)
def test_real_messages_stay_readable(message: str) -> None:
    """Of a typical message at least 85 % of the words survive."""
    words = re.findall(r"[^\W\d_]+", message)
    left = re.findall(r"[^\W\d_]+", TOKEN.sub(" ", Redactor(b"k").message(message)))
    assert len(left) >= 0.85 * len(words), Redactor(b"k").message(message)


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-05-12 10:20:30.123 UTC",
        "2024/05/12 10:20:30",
        "2024-05-12T10:20:30.123456789Z",
        "1:M 12 May 2024 10:20:30.123",
        "[Nest] 42  - 05/12/2024, 10:20:30 AM",
    ],
)
def test_the_time_of_a_log_line_stays(stamp: str) -> None:
    """The date with which a service begins its line stays, any other may be that of a birth."""
    assert Redactor(b"k").message(f"{stamp} error 1984-05-12") == f"{stamp} error {Redactor(b'k').token('1984-05-12')}"


NAMES = [
    "Erika",
    "Mustermann",
    "Öztürk",
    "O'Brien",
    "Rose",
    "Will",
    "Max",
    "Mark",
    "Can",
    "EDWARD",
    "ERIKA",
    "Иван",
    "محمد",
    "李",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "frame",
    [
        "patient {} not found",
        "Key (name)=({}) already exists.",
        'Key (a, b)=({}, true) is not present in table "doctors".',
        "Failing row contains (1, {}, null).",
        'invalid input syntax for type uuid: "{}"',
        'login failed for user "{}"',
        'role "{}" does not exist',
        "cannot update '{}'",
        "name={}",
        "{}",
        "‹{}›",
        "{}_1984",
        "x_{}",
        "GET /patients?name={}",
        'request: "GET /patients/{} HTTP/1.1"',
        "error.{}.failed",
    ],
)
def test_names_are_masked(name: str, frame: str) -> None:
    """The name of a person is a token wherever it stands in a message."""
    result = Redactor(b"k").message(frame.format(name))
    assert name not in TOKEN.sub(" ", result)
    assert TOKEN.search(result)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("born 1984-05-12", "1984"),
        ("born 12.05.1984", "1984"),
        ("born 12/05/1984", "1984"),
        ("birth: 1984-05-12T00:00:00.000Z", "1984"),
        ("phone 0171 234 5678", "5678"),
        ("phone +49 (171) 2345-678", "2345"),
        ("number A123456789", "123456789"),
        ("id 6f1c7a52-3f0e-4a53-9a7c-1f2e3d4c5b6a", "4a53"),
        ("Key (name)=(lock table) already exists.", "lock"),
        ("Failing row contains (1, Key Index, 12345).", "Index"),
        ("Failing row contains (1, Key Index, 12345).", "12345"),
    ],
)
def test_numbers_and_rows_are_masked(text: str, hidden: str) -> None:
    """Dates of birth, telephone and insurance numbers and the values of a row don't come out."""
    assert hidden not in TOKEN.sub(" ", Redactor(b"k").message(text))


def test_identifiers_and_public_names_stay() -> None:
    """What PostgreSQL quotes after a noun of its own is no value of a user, and what was allowed stays."""
    one = Redactor(b"k")
    one.allow("klinik_nord")
    for text in (
        'relation "patients"',
        'constraint "uq_patient_email"',
        'role "allodoc_app"',
        'database "klinik_nord"',
    ):
        assert one.message(text) == text
    assert one.message('role "klinik_nord"') == 'role "klinik_nord"'
    assert one.message('value "patients"') != 'value "patients"'


def test_lexicon() -> None:
    """The lexicon is in lower case and holds no name, no illness and, but for the article, no single letter."""
    words = lexicon()
    forbidden = (
        "mark grant page long young king bill frank rose grace miller baker cook major may june april august klein "
        "gross lang max don art drew pat will hope dale dean lane wood hill lee case ward price parent head field "
        "can ali deniz power chase hunter best cross post rich martin simon peter anna laura lea kim ben sam tom "
        "jean marie list line peer else back block "
        "diabetes cancer hiv positive negative pregnant insulin asthma depression"
    )
    assert 1200 <= len(words) <= 1800
    assert words.isdisjoint(forbidden.split())
    assert all(word == word.lower() and (len(word) > 1 or word == "a") for word in words)


# Statements ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT * FROM patients WHERE name = 'Erika'", "SELECT * FROM patients WHERE name = ?"),
        ("SELECT E'it\\'s', 'a''b', $$x$$, $t$y$t$", "SELECT ?, ?, ?, ?"),
        ("SELECT 42, 1.5, 1e3, -7, B'101', X'1F', U&'d\\0061'", "SELECT ?, ?, ?, -?, ?, ?, ?"),
        ("SELECT 1 -- for Erika\nFROM t /* and /* Max */ */ WHERE a=$1", "SELECT ? FROM t WHERE a=$1"),
        ("SELECT/* Erika */a/**/FROM t", "SELECT a FROM t"),
        ("SELECT 'ü', x, 'ö' FROM t WHERE y = 'z'", "SELECT ?, x, ? FROM t WHERE y = ?"),
        (
            "UPDATE users SET password = $1, token=$12 WHERE id = 5",
            "UPDATE users SET password = $1, token=$12 WHERE id = ?",
        ),
        ("CREATE USER app PASSWORD 'hunter2'", "CREATE USER app PASSWORD ?"),
        ('SELECT "Patient"."firstName" FROM "patient"', 'SELECT "Patient"."firstName" FROM "patient"'),
        ("SELECT * FROM t WHERE name = 'Eri", f"SELECT … {WITHHELD}"),
        ("SELECT $$ Erika", f"SELECT … {WITHHELD}"),
        ("SELECT 1 /* Erika", f"SELECT … {WITHHELD}"),
        ("Erika 'x", WITHHELD),
        ("", ""),
        ("'", WITHHELD),
    ],
)
def test_statement(sql: str, shown: str) -> None:
    """A statement shows its structure and no literal; one that was cut off inside a literal shows nothing."""
    assert Redactor(b"k").statement(sql) == shown


def test_statement_hides_secrets_and_values_in_double_quotes() -> None:
    """A known secret is gone even as an identifier, and so is what is no identifier but stands in double quotes."""
    known = redactor("hunter22")
    assert known.statement("SELECT hunter22") == f"SELECT {known.token('hunter22')}"
    assert "Erika" not in known.statement('SELECT * FROM t WHERE name = "Erika Mustermann"')


# Evidence ------------------------------------------------------------------------------------------------------------


class Level(StrEnum):
    """An enumeration of the source."""

    HIGH = "correct-horse"


class Pair(NamedTuple):
    """A tuple with names."""

    left: str
    right: int


@dataclass(frozen=True, slots=True)
class Inner:
    """The inner record."""

    text: str
    level: Level = Level.HIGH


@dataclass(frozen=True)
class Outer:
    """The outer record, with a field that its constructor does not take."""

    inner: tuple[Inner, ...]
    facts: Mapping[str, object]
    derived: str = field(init=False, default="correct-horse")
    number: float = 1.5


def test_evidence_is_walked_however_deep() -> None:
    """Every text of a record is redacted, in frozen dataclasses, mappings, tuples and sets, and the types stay."""
    known = redactor("correct-horse")
    token = known.token("correct-horse")
    facts = MappingProxyType(
        {"correct-horse": [{"a": ("x correct-horse", {"correct-horse"})}], "b": b"correct-horse", "n": None}
    )
    record = Outer((Inner("correct-horse"), Inner("fine")), facts)
    result = known.evidence({"record": record, "pair": Pair("correct-horse", 1)})
    outer = result["record"]
    assert isinstance(outer, Outer)
    assert outer.inner == (Inner(token), Inner("fine"))
    assert outer.inner[0].level is Level.HIGH
    assert outer.derived == token
    assert outer.number == 1.5
    assert outer.facts == {token: [{"a": (f"x {token}", {token})}], "b": token.encode(), "n": None}
    assert result["pair"] == Pair(token, 1)
    assert isinstance(result["pair"], Pair)
    assert record.derived == "correct-horse", "the record itself is left alone"


# Tokens --------------------------------------------------------------------------------------------------------------


def test_tokens() -> None:
    """Equal values have equal tokens within a run, and other tokens in another run."""
    one, other = Redactor(), Redactor()
    assert one.token("x") == one.token("x") != one.token("y")
    assert one.token("x") != other.token("x")
    assert one.message("Erika") == one.token("Erika") != other.message("Erika")
    assert one.fingerprint("abcdef") == f"6 characters, {one.token('abcdef')}"


def test_redacting_twice_changes_nothing() -> None:
    """What was redacted can pass again, as evidence does."""
    one = redactor("correct-horse")
    once = one.message('Erika at redis://:correct-horse@8.8.8.8, password="x y", Bearer abcdefgh, a@b.de')
    assert one.message(once) == once
    assert one.evidence(once) == once


# Properties ----------------------------------------------------------------------------------------------------------

PRINTABLE = "".join(c for c in string.printable if c.isprintable())
planted = st.text(PRINTABLE, min_size=6, max_size=40).filter(
    lambda s: len(s.strip()) >= 6 and not re.fullmatch(r"[0-9a-f]{6}", s) and len(set(s)) > 2
)
around = (
    st.text(max_size=60)
    | st.sampled_from(MESSAGES)
    | st.sampled_from(["password=", "Bearer ", "://a:", '"', "%40", "\\"])
)


@settings(max_examples=400, deadline=None)
@given(planted, around, around)
def test_a_planted_secret_never_comes_out(secret: str, before: str, after: str) -> None:
    """Whatever stands around it, a known secret is in no text, no message and no evidence."""
    known = redactor(secret)
    for form in (secret, quote(secret, safe=""), json.dumps(secret)):
        line = f"{before}{form}{after}"
        for result in (known.text(line), known.message(line), str(known.evidence({"a": (line,)})["a"][0])):
            assert secret not in result
            assert form not in result


@settings(max_examples=200, deadline=None)
@given(st.text(PRINTABLE, min_size=8, max_size=40).filter(lambda s: len(s.strip()) >= 8), st.binary(max_size=7))
def test_a_planted_secret_never_comes_out_of_base64(secret: str, before: bytes) -> None:
    """In the middle of something in base64 a known secret is found as well."""
    coded = base64.b64encode(before + b":" + secret.encode() + b":x").decode()
    assert coded not in redactor(secret).text(f"sent {coded}")


letters = st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=2, max_size=20)
separators = st.sampled_from(
    [" ", ", ", ": ", "=", "(", ")", ' "', '" ', " '", "/", "-", ".", "\n", " ‹", "› ", "::", ")=(", "@"]
)


@settings(max_examples=400, deadline=None)
@given(letters, separators, separators, around, around)
def test_a_planted_name_never_comes_out(name: str, left: str, right: str, before: str, after: str) -> None:
    """A word that is not in the lexicon does not come out of a message, whatever stands around it."""
    name = f"Qx{name}"  # in no lexicon, and not made of its words
    assert name not in Redactor(b"k").message(f"{before}{left}{name}{right}{after}")


# Speed ---------------------------------------------------------------------------------------------------------------

EVIL = [
    *(
        "a",
        "a.",
        "_",
        "password",
        "password=",
        'password="',
        'password: \\"',
        "a@",
        "%40",
        "a://",
        "a://b:",
        "a:",
        "::",
        "1:",
    ),
    *(
        "1.",
        "1.1.1.1.",
        "eyJ",
        "eyJaaaaaa.",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY",
        '"',
        "'",
        "`",
        "\"'",
        "‹",
        "\x1b[",
    ),
    *(
        "\x1b]",
        "Bearer ",
        "cookie: ",
        ")=(",
        "row contains (",
        "0 ",
        "+1 ",
        "$2a$",
        "Aa",
        "_a",
        "1-",
        "1/",
        "a'",
        "ab::",
    ),
    *("https://x:@", "abcdefab-", "secret-", 'relation "', 'upstream: "a ', "correct-horse", "correct-", "é", "\u0301"),
]


@pytest.mark.parametrize("part", EVIL)
def test_no_line_takes_long(part: str) -> None:
    """A line of 100 kB takes less than a second, whatever it is made of."""
    known = redactor("correct-horse")
    line = (part * (100_000 // len(part) + 1))[:100_000]
    start = time.process_time()
    known.message(line)
    assert time.process_time() - start < 1


def test_a_thousand_lines_are_quick() -> None:
    """A thousand lines of 200 characters take less than 100 ms as messages and less than 50 ms as texts."""
    known = redactor(*(f"S3cr{number}t/val&{number * 7919}" for number in range(15)))
    lines = [f"{number} {' '.join(MESSAGES[number % len(MESSAGES) :])}"[:200] for number in range(1000)]
    known.message(lines[0])
    best = {"text": 9.0, "message": 9.0}
    for _ in range(3):
        for name, redact in (("text", known.text), ("message", known.message)):
            start = time.process_time()
            for line in lines:
                redact(line)
            best[name] = min(best[name], time.process_time() - start)
    assert best["text"] < 0.05
    assert best["message"] < 0.1


def test_secrets_are_learnt_while_others_redact() -> None:
    """Probes run in threads: one learns tokens while another's evidence is made."""
    redactor = Redactor()
    done = threading.Event()

    def learn() -> None:
        for number in range(3000):
            redactor.learn(f"{number:06d}-{'abcdefgh'[number % 8] * 12}")
        done.set()

    learner = threading.Thread(target=learn)
    learner.start()
    while not done.is_set():
        assert redactor.text("nothing in here is secret") == "nothing in here is secret"
    learner.join()
    assert redactor.knows("001000-aaaaaaaaaaaa")
