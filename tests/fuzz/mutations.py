"""Damage to a file: what transfers, editors and other programs do to it, and what an attacker would.

Every choice is an integer from `draw(low, high)`, both included, so that hypothesis can draw it and shrink
what it finds, and a plain random generator can draw it a hundred times faster.
"""

import re
import struct
import zlib
from collections.abc import Callable, Sequence

Draw = Callable[[int, int], int]

NUMBERS = (
    b"0 -1 1 2 255 256 65535 65536 2147483648 9223372036854775808 99999999999999999999999 0.5 -0.0 1e999 "
    b"nan inf 0,5 1e-400 0x10 1_0 true null [] {} \"\" ''"
).split()
INTEGERS = (0, 1, 2, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
TOKEN = re.compile(rb"[-+\w.]+")
PNG = b"\x89PNG\r\n\x1a\n"


def damage(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    """`content` after one to four mutations; pieces of `others` may enter, a PNG's checksums be mended."""
    for _ in range(draw(1, 4)):
        content = MUTATIONS[draw(0, len(MUTATIONS) - 1)](content, others, draw)
    if content.startswith(PNG) and draw(0, 3):
        content = mend_png(content)
    return content


def _place(content: bytes, draw: Draw) -> int:
    """Somewhere in the file, half of the time in its header."""
    end = len(content) if draw(0, 1) else min(len(content), 200)
    return draw(0, end)


def _flip(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    at = _place(content, draw)
    return content[:at] + bytes(byte ^ 1 << draw(0, 7) for byte in content[at : at + 1]) + content[at + 1 :]


def _byte(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    at = _place(content, draw)
    return content[:at] + bytes([draw(0, 255)]) + content[at + 1 :]


def _integer(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    at, form = _place(content, draw), ("<Q", ">Q", "<I", ">I", "<H")[draw(0, 4)]
    value = INTEGERS[draw(0, len(INTEGERS) - 1)] % 2 ** (8 * struct.calcsize(form))
    return content[:at] + struct.pack(form, value) + content[at + struct.calcsize(form) :]


def _token(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    """A word or number of a text becomes another."""
    found = TOKEN.search(content, _place(content, draw))
    if found is None:
        return content
    return content[: found.start()] + NUMBERS[draw(0, len(NUMBERS) - 1)] + content[found.end() :]


def _delete(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    at = _place(content, draw)
    return content[:at] + content[at + draw(1, 40) :]


def _repeat(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    at, length = _place(content, draw), draw(1, 60)
    return content[:at] + content[at : at + length] * draw(2, 4) + content[at + length :]


def _truncate(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    return content[: _place(content, draw)]


def _insert(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    at = _place(content, draw)
    pieces = (
        b"\n",
        b"\r",
        b"\0",
        b"#",
        b"\xef\xbb\xbf",
        b"\xff",
        b" ",
        b"\t",
        b"../",
        b"[" * 3000,
        b'"',
        b",",
    )
    return content[:at] + pieces[draw(0, len(pieces) - 1)] + content[at:]


def _splice(content: bytes, others: Sequence[bytes], draw: Draw) -> bytes:
    other = others[draw(0, len(others) - 1)]
    return content[: _place(content, draw)] + other[_place(other, draw) :]


MUTATIONS = (_flip, _byte, _integer, _token, _delete, _repeat, _truncate, _insert, _splice)


def mend_png(content: bytes) -> bytes:
    """The checksums of all chunks made right, or nothing but the header would ever be tested."""
    parts, at = [content[: len(PNG)]], len(PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        body = content[at + 4 : at + 8 + length]
        parts += [content[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*parts, content[at:]])
