"""Books: the lines of a text file to paragraphs, a volume of bounded size at a time.

Knows nothing of files on disk, cleaning rules or tokens.
"""

from collections.abc import Iterable, Iterator

from data_prep.raw import gutenberg
from data_prep.raw.paragraphs import paragraphs_of

# The longest books have about 6 million characters. What is longer is a collection, and memory has to stay bounded.
VOLUME_CHARACTERS = 4 << 20


def parse_books(lines: list[str]) -> Iterator[tuple[list[str], bool]]:
    """The paragraphs of every book that the lines hold, and whether boilerplate was cut off; one at least."""
    found = gutenberg.regions(lines) or [(0, 0)]
    for first, last in found:
        stripped = (first, last) != (0, len(lines))
        paragraphs = paragraphs_of(gutenberg.without_additions(lines[first:last]), gutenberg.is_list)
        paragraphs = [gutenberg.plain(paragraph) for paragraph in paragraphs if any(map(str.isalnum, paragraph))]
        yield gutenberg.without_credits(paragraphs) if stripped else paragraphs, stripped


def volumes(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines of a file in volumes of about VOLUME_CHARACTERS, one at least, parted at a blank line where one comes soon.

    A line that is longer than a volume is cut at a blank.
    """
    volume: list[str] = []
    size = number = 0
    for whole in lines:
        for line in _pieces(whole):
            if size + len(line) > VOLUME_CHARACTERS and (
                not line.strip() or size + len(line) > 1.1 * VOLUME_CHARACTERS
            ):
                yield volume
                volume, size, number = [], 0, number + 1
            volume.append(line)
            size += len(line) + 1
    if volume or not number:
        yield volume


def _pieces(line: str) -> Iterator[str]:
    while len(line) > VOLUME_CHARACTERS:
        cut = line.rfind(" ", 1, VOLUME_CHARACTERS) + 1 or VOLUME_CHARACTERS
        yield line[:cut]
        line = line[cut:]
    yield line
