"""The stages of runs up to their weights, one run after another, in the processes of one start.

python -m tests.run_stages ROOT NAME ... on every rank: starting torch and DeepSpeed takes longer than the tests train.
"""

import sys
from pathlib import Path

from pipeline.runs.run import Run
from pipeline.stages.table import do_stage, stages_of
from pipeline.training.ranks import started_ranks


def main(root: Path, names: list[str]) -> None:
    with started_ranks() as ranks:
        for name in names:
            run = Run.open(root, name)
            for stage in stages_of(run.recipe)[:-1]:
                do_stage(stage, run, ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
