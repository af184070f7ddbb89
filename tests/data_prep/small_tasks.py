"""The command line of data_prep with tasks so small that a few hundred kilobytes of text make dozens of them.

Sizes of tasks are planned by the first process and travel in the tasks, so its workers need not be told.
"""

import sys

from data_prep import buckets
from data_prep.__main__ import main
from data_prep.raw import sources

if __name__ == "__main__":
    sources.UNIT_BYTES = 16 << 10
    buckets._SMALL_BUCKET = 32 << 10
    sys.exit(main())
