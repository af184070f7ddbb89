"""Checkpoints are whole or not there: cut short, damaged, lost or refused, each is told apart."""

import json
import os
from pathlib import Path

import pytest
import torch

from data_prep.errors import UserError
from data_prep.manifest import MANIFEST_NAME
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.ranks import Ranks


class FakeDeepSpeed:
    """Writes and reads one file, as DeepSpeed would; the real one is in test_engine.py."""

    def __init__(self) -> None:
        self.value, self.fail = 0, False

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        target = Path(folder) / tag
        target.mkdir()
        (target / "model.pt").write_text(str(self.value))
        if self.fail:
            raise OSError(28, "No space left on device")

    def load_checkpoint(self, folder: str, tag: str) -> tuple[str, dict]:
        self.value = int((Path(folder) / tag / "model.pt").read_text())
        return folder, {}


class FakeEngine:
    def __init__(self, world_size: int = 1, zero_stage: int = 1) -> None:
        self.deepspeed = FakeDeepSpeed()
        self.ranks = Ranks(0, 0, 1, torch.device("cpu"))
        self.zero_stage = zero_stage
        if world_size != 1:
            self.ranks = type("Two", (), {"world_size": world_size, "is_main": True, "from_main": lambda _, v: v})()


def saved(folder: Path, *steps: int, keep: int = 5) -> Checkpoints:
    checkpoints, engine = Checkpoints(folder, keep), FakeEngine()
    for step in steps:
        engine.deepspeed.value = step
        checkpoints.save(engine, step, {"at": step}, {"t": torch.tensor([step])})
    return checkpoints


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5, 10, 15, keep=2)
    assert [path.name for path in checkpoints.complete()] == ["step-00000010", "step-00000015"]
    engine = FakeEngine()
    restored = checkpoints.restore(engine)
    assert restored is not None
    assert (restored.step, restored.values, restored.tensors["t"].item()) == (15, {"at": 15}, 15)
    assert engine.deepspeed.value == 15


def test_nothing_saved_is_a_fresh_start(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", 2).restore(FakeEngine()) is None


def test_a_save_cut_short_is_invisible(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5)
    partial = tmp_path / "c" / ".partial-00000010" / "engine"
    partial.mkdir(parents=True)
    (partial / "model.pt").write_text("10")
    unlisted = tmp_path / "c" / "step-00000020"
    unlisted.mkdir()
    (unlisted / "state.json").write_text("{}")
    restored = checkpoints.restore(FakeEngine())
    assert restored is not None
    assert restored.step == 5
    checkpoints.save(FakeEngine(), 25, {}, {"t": torch.zeros(1)})
    assert not list((tmp_path / "c").glob(".partial*"))


def test_the_pointer_is_not_trusted(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5, 10)
    for text in ("", '{"step": 5}', "nonsense"):
        (tmp_path / "c" / "newest.json").write_text(text)
        restored = checkpoints.restore(FakeEngine())
        assert restored is not None
        assert restored.step == 10


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_one_is_left_aside_aloud(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = saved(tmp_path / "c", 5, 10)
    victim = tmp_path / "c" / "step-00000010" / "engine" / "model.pt"
    if damage == "flip":
        victim.write_text("11")
    elif damage == "truncate":
        os.truncate(victim, 1)
    else:
        victim.unlink()
    restored = checkpoints.restore(FakeEngine())
    assert restored is not None
    assert restored.step == 5
    assert str(victim) in capsys.readouterr().out


def test_no_whole_checkpoint_is_an_error_never_step_zero(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5)
    victim = tmp_path / "c" / "step-00000005" / "engine" / "model.pt"
    victim.write_text("6")
    with pytest.raises(UserError) as caught:
        checkpoints.restore(FakeEngine())
    listed = json.loads((tmp_path / "c" / "step-00000005" / MANIFEST_NAME).read_text())["files"]
    assert listed["engine/model.pt"]["sha256"] in str(caught.value)


def test_a_lost_checkpoint_is_missed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5)
    for path in checkpoints.complete():
        (path / MANIFEST_NAME).unlink()
    with pytest.raises(UserError, match="no complete checkpoint"):
        checkpoints.restore(FakeEngine())


def test_another_topology_is_refused_with_both_numbers(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5)
    with pytest.raises(UserError, match=r"'world_size': 1.*'world_size': 2"):
        checkpoints.restore(FakeEngine(world_size=2))
    with pytest.raises(UserError, match=r"'zero_stage': 1.*'zero_stage': 3"):
        checkpoints.restore(FakeEngine(zero_stage=3))


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 5)
    engine = FakeEngine()
    engine.deepspeed.fail = True
    with pytest.raises(UserError) as caught:
        checkpoints.save(engine, 10, {}, {"t": torch.zeros(1)})
    assert "No space left" in str(caught.value)
    assert "step-00000005" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["newest.json", "step-00000005"]
    restored = checkpoints.restore(FakeEngine())
    assert restored is not None
    assert restored.step == 5
