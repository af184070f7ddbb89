"""Command `stats`: what is in a corpus, as tables in the terminal and as one page with pictures.

Knows nothing of how the figures are got or drawn. It shows what there is: stages that have not finished are left out.
"""

from collections.abc import Iterator

from data_prep.corpus import Corpus
from data_prep.files import write_atomically
from data_prep.stats import row_tables, tables
from data_prep.stats.figures import Figures, gather
from data_prep.stats.text import text_of
from data_prep.terminal import escaped, show, visible

PAGE_NAME = "stats.html"


def stats(corpus: Corpus) -> None:
    """Print the tables and write `stats.html` into the corpus folder.

    Raises UserError where not even ingest has finished, and where a file is damaged.
    """
    figures = gather(corpus)
    for part in _parts(figures):
        show(visible(part) + "\n")
    # matplotlib takes its time, which other commands of the same command line and their workers need not wait for.
    from data_prep.stats.page import page

    path = corpus.root / PAGE_NAME
    write_atomically(path, page(figures, escaped(corpus.root.resolve().name)))
    print(f"stats: the same with pictures is in {path}")


def _parts(figures: Figures) -> Iterator[str]:
    yield text_of(tables.source_table(figures))
    yield text_of(tables.split_table(figures))
    yield text_of(tables.rule_table(figures))
    samples = tables.drop_samples(figures)
    if samples:
        lines = ["Samples of what was dropped"]
        for rule, found in samples.items():
            lines += [f"  {rule}", *(f"    {name}: {text}" for name, text in found)]
        yield "\n".join(lines)
    yield text_of(tables.edit_table(figures))
    if figures.clean["results"]["num_problems"]:
        yield text_of(tables.problem_table(figures))
    yield text_of(tables.duplicate_table(figures))
    if figures.clean["results"]["repeated_lines"]:
        yield text_of(tables.repeated_table(figures))
    yield text_of(tables.length_table(figures))
    if figures.tokenizer:
        yield text_of(tables.tokenizer_table(figures))
    if figures.sets:
        yield text_of(row_tables.row_table(figures))
        yield text_of(row_tables.fill_table(figures))
        yield text_of(row_tables.mixture_table(figures))
        yield text_of(row_tables.vocabulary_table(figures))
    yield text_of(tables.stage_table(figures))
