"""The lines of a text file, plain or gzipped, with their numbers. Knows nothing of what is in them."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import UserError

_BOM = b"\xef\xbb\xbf"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) split on newlines only: the texts hold U+0085 and U+2028.

    Raises UserError for a file that cannot be read or unpacked, and naming the line that is not UTF-8.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error
    lines = content.removeprefix(_BOM).split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start} of the line)"
            ) from error
