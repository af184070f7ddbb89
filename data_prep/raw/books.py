"""Books: the text of a file to paragraphs.

Knows nothing of files on disk, cleaning rules or tokens.
"""

from collections.abc import Iterator

from data_prep.raw import gutenberg
from data_prep.raw.paragraphs import paragraphs_of

# The longest books have about 6 MB. Longer files are read as volumes of this size, so that memory stays bounded.
VOLUME_BYTES = 4 << 20


def parse_books(text: str) -> Iterator[tuple[list[str], bool]]:
    """The paragraphs of every book that a text holds, and whether boilerplate was cut off; one at least."""
    lines = text.split("\n")
    for first, last in gutenberg.regions(lines) or [(0, 0)]:
        stripped = (first, last) != (0, len(lines))
        book = gutenberg.without_additions("\n".join(lines[first:last]) if stripped else text)
        paragraphs = paragraphs_of(book, gutenberg.is_list)
        paragraphs = [gutenberg.plain(paragraph) for paragraph in paragraphs if any(map(str.isalnum, paragraph))]
        yield gutenberg.without_credits(paragraphs) if stripped else paragraphs, stripped
