"""Text that was observed, made fit for formats that have control characters of their own.

What a log line or a table's name holds is hostile until it is written: escape sequences that paint a terminal, line
breaks that begin a new record, marks that turn the reading direction. None of them belongs into a sentence.
"""

from __future__ import annotations

import re

SUBSTITUTE = "\ufffd"
"""What stands for a character that can't be shown."""

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
# Controls, halves of surrogate pairs, what is no character at all, and marks of reading direction.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def one_line(text: str) -> str:
    r"""The text on one line: breaks become spaces, what can't be shown becomes a substitute.

    >>> one_line("two\r\nlines"), one_line("\x1b[31mred")
    ('two lines', '�[31mred')
    """
    return _UNPRINTABLE.sub(SUBSTITUTE, _BREAKS.sub(" ", text))


def lines(text: str) -> str:
    r"""The text with nothing but line feeds for its breaks.

    >>> lines("one\r\ntwo\x00")
    'one\ntwo�'
    """
    return "\n".join(one_line(line) for line in text.splitlines())
