"""The cluster (one a session) and a project folder whose job scripts are the real ones."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, running_cluster, why_not

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real SLURM of two nodes with two CPUs each; skips, saying why, where there can be none."""
    if reason := why_not():
        pytest.skip(reason)
    with running_cluster(cpus_per_node=2) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """slurm/ as it is, and the pipeline's modules around a stand-in for its command line."""
    folder = tmp_path / "project"
    # The site.env of whoever works in this checkout stays out.
    shutil.copytree(ROOT / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("site.env"))
    (folder / "data_prep").symlink_to(ROOT / "data_prep")
    (folder / "pipeline").mkdir()
    for path in (ROOT / "pipeline").iterdir():
        if path.name != "__main__.py":
            (folder / "pipeline" / path.name).symlink_to(path)
    shutil.copy(Path(__file__).with_name("stand_in.py"), folder / "pipeline" / "__main__.py")
    return folder
