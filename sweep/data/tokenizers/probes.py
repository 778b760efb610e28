"""Texts that show what a tokenizer changes: a lossless one reproduces them all."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from sweep.data.documents import SPACE_MARK

MIXED = " Two  spaces, a\ttab,\n\na naïve → 🦊, UPPER, ½ ﬁ e\u0301 and a tail "
"""Text that a tokenizer with any normalisation, stripping or unknown token cannot reproduce."""

PROBES = (
    *("words", "Upper", "two  spaces", "a\ttab", "a\n\nline", "CR\r\nLF", "naïve", "→", "🦊", "½", "ﬁ"),
    *("e\u0301", "tail ", "0123", MIXED.strip()),
    *("\ufefffirst", "Mac\rline", "three   spaces", "two\t\ttabs", "a\n\n\n\nline", "end \nof line"),
    *("in-\ndent\n    ed", "Don't", "can not", "wait ... what ?", "(a , b)", "``quoted''", "so -- 'so'"),
    *("1,234.50 %", "yesssss!!!"),
    *("a &amp; b", "<br />", "https://a.org/b?c=d#e", "me@a.org", "@me #tag", "{{x}} [y] $z$ \\w_"),
)
"""Texts without a leading space, each with one thing that tokenizers change; reported one at a time."""

BLOCKS = (
    range(0x3400),  # alphabets, marks, controls, spaces, punctuation, symbols, kana, jamo
    range(0x4E00, 0x4E20),  # some ideographs
    range(0xA000, 0xA020),
    range(0xA640, 0xAC20),  # further alphabets, and some Hangul syllables
    range(0xE000, 0xE008),  # private use
    range(0xF900, 0xF910),
    range(0xFB00, 0xFFFE),  # other forms of letters, variation selectors, the byte order mark
    range(0x1D400, 0x1D420),
    range(0x1F000, 0x1FB00),  # emoji
    range(0x20000, 0x20008),
    range(0xE0000, 0xE01F0),  # tags and further variation selectors
)
"""Code points that are probed: whole blocks where characters differ in kind, else some of a block."""

CHARACTERS_PER_TEXT = 64


def characters() -> str:
    """Return the assigned characters of BLOCKS but SPACE_MARK, which has its own check."""
    found = (chr(code) for block in BLOCKS for code in block)
    return "".join(c for c in found if c != SPACE_MARK and unicodedata.category(c) not in ("Cn", "Cs"))


def text_of(parts: Iterable[str]) -> str:
    """Return a text in which each of some characters, or longer parts, stands within a word."""
    return " ".join(f"a{part}b" for part in parts)


def character_groups() -> Iterator[str]:
    """Yield the characters in groups of CHARACTERS_PER_TEXT."""
    found = characters()
    for first in range(0, len(found), CHARACTERS_PER_TEXT):
        yield found[first : first + CHARACTERS_PER_TEXT]
