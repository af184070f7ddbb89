"""Real texts for tests that want them, where they are at hand."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("EARLYBIRD_DATA") or Path(__file__).parents[3] / "shared" / "data")
_OTHER = "(EARLYBIRD_DATA names another folder)"
needs_texts = pytest.mark.skipif(not (DATA / "books").is_dir(), reason=f"left out: no real texts at {DATA} {_OTHER}")
needs_dump = pytest.mark.skipif(
    not list((DATA / "wikipedia" / "xml").glob("*.bz2")),
    reason=f"left out: no MediaWiki dump at {DATA}/wikipedia/xml {_OTHER}",
)
