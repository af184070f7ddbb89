"""The run folder: where each stage reads and writes. Knows nothing of torch.

Stages speak to each other only through these files.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.manifest import differing_keys, is_done
from data_prep.errors import UserError
from data_prep.files import write_atomically


STARTED, LOCK = "started.json", ".lock"


@dataclass(frozen=True)
class RunFolder:
    """runs/NAME: one folder a stage, each with its manifest written last."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.json"

    @property
    def search(self) -> Path:
        return self.root / "search"

    @property
    def scores(self) -> Path:
        return self.search / "scores"

    @property
    def draw(self) -> Path:
        return self.root / "draw"

    @property
    def ticket(self) -> Path:
        return self.root / "ticket.json"

    @property
    def pretrain(self) -> Path:
        return self.root / "pretrain"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def model_expanded(self) -> Path:
        return self.root / "model-expanded"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def beside(self, name: str) -> "RunFolder":
        """The folder of the run of that name beside this one."""
        return RunFolder(self.root.parent / name)

    @property
    def name(self) -> str:
        """The run's name; of a fine-tuning with its task and seed."""
        if self.root.parent.parent.name == "finetune":
            return "-".join(self.root.parts[-4:])
        return self.root.name

    def finetune(self, task: str, seed: int) -> Path:
        return self.root / "finetune" / task / f"seed-{seed}"


def check_settings(folder: Path, stage: str, settings: Mapping[str, Any]) -> None:
    """Raise UserError when the stage of this folder was begun with other settings."""
    started = folder / STARTED
    if started.exists():
        _refuse_changes(folder, stage, json.loads(started.read_text(encoding="utf-8"))["settings"], settings)


def begin(
    folder: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Any], force: bool = False
) -> bool:
    """True when the stage of this folder has work to do: it is not done, or `force` has emptied its folder.

    What the stage is begun with is kept, so that an interrupted one is only ever resumed with the same. Raises
    UserError when it was done, or begun, with other settings or inputs, naming the keys that differ.
    """
    if force and folder.exists():
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:  # held by this process
                path.unlink()
    if is_done(folder, stage, settings, inputs):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    started = folder / STARTED
    wanted = {"settings": settings, "inputs": inputs}
    if started.exists():
        _refuse_changes(folder, stage, json.loads(started.read_text(encoding="utf-8")), wanted)
    else:
        write_atomically(started, json.dumps(wanted, indent=1) + "\n")
    return True


def _refuse_changes(folder: Path, stage: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = differing_keys(before, json.loads(json.dumps(now)))
    if changed:
        raise UserError(
            f"stage '{stage}' in {folder} was begun with other settings or inputs: {'; '.join(changed)}. "
            "Use another run name, or pass --force to make it again"
        )


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process. Raises UserError when another has it: two writers would mix their files.

    The lock goes with the process, however it ends.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"{folder} is in use by {file.read().strip() or 'another process'}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
