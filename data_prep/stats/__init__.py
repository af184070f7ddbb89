"""Command `stats`: what is in a corpus, as tables in the terminal and as one page with pictures."""

from data_prep.stats.command import stats

__all__ = ["stats"]
