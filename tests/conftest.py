"""Harsher than production: one thread, no network, no W&B account, nothing outside the test's own folder."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.pop("WANDB_API_KEY", None)

REPOSITORY = Path(__file__).parent.parent
REAL_DATA = Path(os.environ.get("EARLYBIRD_DATA", REPOSITORY.parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests start several processes come first: one of them at the end would run alone."""
    long = {item.path for item in items if item.get_closest_marker("dist")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real corpora and GLUE, where somebody has them."""
    if not REAL_DATA.exists():
        pytest.skip(f"left out: needs real data in {REAL_DATA} (set EARLYBIRD_DATA)")
    return REAL_DATA
