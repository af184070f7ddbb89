"""Books: the text of a file to paragraphs.

Knows nothing of files on disk, cleaning rules or tokens.
"""

from collections.abc import Iterator
from functools import partial

from data_prep.raw import gutenberg
from data_prep.raw.paragraphs import paragraphs_of

# The longest books have about 6 MB. Longer files are read as volumes of this size, so that memory stays bounded.
VOLUME_BYTES = 4 << 20


def parse_books(text: str) -> Iterator[tuple[list[str], bool, int]]:
    """The paragraphs of every book that a text holds, whether boilerplate was cut off, and how many characters of
    captions, notes and lists were left out; one book at least."""
    lines = text.split("\n")
    for first, last in gutenberg.regions(lines) or [(0, 0)]:
        stripped = (first, last) != (0, len(lines))
        whole = "\n".join(lines[first:last]) if stripped else text
        book = gutenberg.without_additions(whole)
        lists: list[int] = []
        paragraphs = paragraphs_of(book, partial(_is_left_out, lists, stripped))
        paragraphs = [gutenberg.plain(paragraph) for paragraph in paragraphs if any(map(str.isalnum, paragraph))]
        left_out = len(whole) - len(book) + sum(lists)
        yield gutenberg.without_credits(paragraphs) if stripped else paragraphs, stripped, left_out


def _is_left_out(lists: list[int], is_marked: bool, block: str) -> bool:
    """Whether a block is a list, whose length then goes to `lists`."""
    is_list = gutenberg.is_list(block, is_marked)
    if is_list:
        lists.append(len(block))
    return is_list
