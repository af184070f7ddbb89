"""The lines of a stream, or texts of many lines, in bounded memory, with what is bad about them.

Lines end at "\\n", "\\r\\n" or "\\r" only: U+2028 and U+0085 occur inside real texts. Knows nothing of formats.
"""

import re
from collections.abc import Iterable, Iterator

from data_prep.raw.streams import BOM, BadInput, Complain, Damaged, Stream

MAX_RECORD_BYTES = 32 << 20
_LONE_RETURNS = re.compile(rb"(?<!\r)\r++(?!\n)")


def own_lines(stream: Stream, complain: Complain, inside: bool = False) -> Iterator[tuple[int, str]]:
    """(offset, line) of the lines that start before the stream's limit, as `read_lines` has them.

    Lines that are too long are left out with a complaint. Raises Damaged.
    """
    for offset, line in read_lines(stream, inside):
        if offset >= stream.limit:
            return
        if isinstance(line, str):
            yield offset, line
        elif isinstance(line, Damaged):
            raise line
        else:
            complain(line)


def read_lines(stream: Stream, inside: bool = False) -> Iterator[tuple[int, str | BadInput]]:
    """(offset, line without its line end), or what is bad about it, for all lines of a stream.

    `inside`: the stream may begin in the middle of a line, and what comes before the first line end is left out;
    nothing comes where that lies behind the limit. Bad are lines over MAX_RECORD_BYTES, of which no more than that is
    held, NUL bytes, and what is not UTF-8.
    Where damaged data were left out, the line before them does not come, and the one at offset `stream.resumed` may
    be the end of one.
    """
    offset = stream.base
    pending: list[bytes] = []
    length = 0
    for block in _with_line_feeds(stream):
        if not block:
            offset += length
            pending, length = [], 0
        for number, part in enumerate(block.split(b"\n")):
            if number:
                if not inside:
                    line = _line(stream, offset, pending, length)
                    # Half a line may begin inside of a character.
                    if isinstance(line, str) or offset != stream.resumed:
                        yield offset, line
                inside = False
                offset += length + 1
                pending, length = [], 0
            length += len(part)
            if inside:
                if offset + length >= stream.limit:
                    return
            elif length <= MAX_RECORD_BYTES:
                pending.append(part)
            else:
                pending.clear()
    if length and not inside:
        line = _line(stream, offset, pending, length)
        if isinstance(line, str) or offset != stream.resumed:
            yield offset, line


def read_texts(stream: Stream, size: int) -> Iterator[str]:
    """The text of a stream with "\\n" at the end of every line, in parts of at most `size` bytes, one at least.

    They are parted in the last tenth of that: at a blank line, else at a line end, else at a blank, else between two
    characters. Raises Damaged for NUL bytes and what is not UTF-8.
    """
    offset = stream.base
    held = bytearray()
    for block in _with_line_feeds(stream):
        held += block
        while len(held) > size:
            cut = _place_to_cut(held, size)
            yield _text(stream, offset, bytes(held[:cut]))
            del held[:cut]
            offset += cut
    if held or offset == stream.base:
        yield _text(stream, offset, bytes(held))


def _place_to_cut(held: bytearray, size: int) -> int:
    for mark in (b"\n\n", b"\n\r\n", b"\n", b" "):
        place = held.rfind(mark, size - size // 10, size)
        if place >= 0:
            return place + len(mark)
    # Bytes 10xxxxxx go on with a character.
    return next((n for n in range(size, max(size - 4, 1), -1) if held[n] & 0xC0 != 0x80), size)


def _text(stream: Stream, offset: int, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        for line in content.split(b"\n"):
            problem = _line(stream, offset, [line], 0)
            if isinstance(problem, BadInput):
                raise problem
            offset += len(line) + 1
    return text.replace("\r\n", "\n").replace("\r", "") if "\r" in text else text


def _with_line_feeds(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks with "\n" for every "\r" that ends a line by itself; "\r\n" and "\r\r\n" stay, and empty blocks do."""
    held = b""
    for block in blocks:
        if not block:
            if held:
                yield b"\n" * len(held)
            held = b""
            yield block
            continue
        # What follows the last returns is not known yet.
        known = (held + block).rstrip(b"\r")
        held = (held + block)[len(known) :]
        if known.count(b"\r") > known.count(b"\r\n"):
            known = _LONE_RETURNS.sub(lambda found: b"\n" * len(found[0]), known)
        if known:
            yield known
    if held:
        yield b"\n" * len(held)


def _line(stream: Stream, offset: int, parts: list[bytes], length: int) -> str | BadInput:
    if length > MAX_RECORD_BYTES:
        return BadInput(
            f"{stream.path}: the line {stream.where(offset)} is {length:,} bytes long, at most {MAX_RECORD_BYTES:,} "
            "are read; break it up or take it out"
        )
    line = parts[0] if len(parts) == 1 else b"".join(parts)
    if b"\0" in line:
        return Damaged(
            f"{stream.path} is not a text file: NUL byte {stream.where(offset + line.index(0))}; "
            "move it out of the source, or convert it if it is not UTF-8"
        )
    begin = len(BOM) if offset == 0 and line.startswith(BOM) else 0
    try:
        return line[begin:].decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        place = begin + error.start
        return Damaged(
            f"{stream.path} is not UTF-8: byte 0x{line[place]:02x} {stream.where(offset + place)}; "
            "convert it (for instance iconv -f latin1 -t utf-8) or move it out of the source"
        )
