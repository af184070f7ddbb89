"""Checkpoints that are either whole or not there. Knows the engine's files and nothing of training.

A checkpoint is written into a hidden folder, flushed to disk, listed with sizes and SHA-256 in a manifest, renamed
into place, and only then named by `newest.json`. The newest complete one is found without trusting that file.
Engine files are DeepSpeed's own (torch pickles, private to the run folder); everything of ours is safetensors or
JSON. Every random choice of a run is a function of (seed, step, ...), so no generator state needs to be kept.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from data_prep.errors import UserError
from data_prep.files import fsync_folder, sha256_file, write_atomically
from data_prep.manifest import MANIFEST_NAME
from pipeline.training.engine import Engine

ENGINE_TAG = "engine"
POINTER = "newest.json"


@dataclass(frozen=True)
class Restored:
    """What a checkpoint held besides the engine's own state."""

    step: int
    values: dict[str, Any]
    tensors: dict[str, torch.Tensor]


class Checkpoints:
    """The checkpoints of one stage, in `folder/step-NNNNNNNN/`."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, engine: Engine, step: int, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Publish the state after `step` steps. Collective. `values` (JSON) and `tensors` are rank 0's.

        Raises UserError when it cannot be written (a full disk); what was published before stays whole.
        """
        ranks = engine.ranks
        partial = self.folder / f".partial-{step:08d}"
        try:
            if ranks.is_main:
                self.folder.mkdir(parents=True, exist_ok=True)
                for stale in self.folder.glob(".partial-*"):
                    shutil.rmtree(stale)
                partial.mkdir()
            ranks.barrier()
            engine.deepspeed.save_checkpoint(str(partial), tag=ENGINE_TAG, save_latest=False)
            ranks.barrier()
            if ranks.is_main:
                save_file(tensors, partial / "state.safetensors")
                (partial / "state.json").write_text(json.dumps(values), encoding="utf-8")
                self._publish(partial, step, engine)
        except (OSError, RuntimeError) as error:
            if ranks.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            complete = [str(path) for path in self.complete()]
            free = shutil.disk_usage(self.folder).free
            raise UserError(
                f"the checkpoint after step {step} could not be written to {self.folder} ({error}; "
                f"{free / 2**20:.0f} MiB free); kept: {complete or 'none yet'}; make room and run again"
            ) from error
        ranks.barrier()

    def _publish(self, partial: Path, step: int, engine: Engine) -> None:
        files = {}
        for path in sorted(p for p in partial.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(partial))] = {
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
            }
        manifest = {
            "step": step,
            "world_size": engine.ranks.world_size,
            "zero_stage": engine.zero_stage,
            "files": files,
        }
        write_atomically(partial / MANIFEST_NAME, json.dumps(manifest, indent=1))
        for folder in (path for path in partial.rglob("*") if path.is_dir()):
            fsync_folder(folder)
        final = self.folder / f"step-{step:08d}"
        if final.exists():
            shutil.rmtree(final)
        os.rename(partial, final)
        fsync_folder(self.folder)
        write_atomically(self.folder / POINTER, json.dumps({"step": step}))
        for old in self.complete()[: -self.keep]:
            # Unpublish first, so that a deletion cut short never looks like a complete checkpoint.
            (old / MANIFEST_NAME).unlink()
            shutil.rmtree(old)

    def complete(self) -> list[Path]:
        """Folders of the published checkpoints, oldest first."""
        return sorted(path.parent for path in self.folder.glob(f"step-*/{MANIFEST_NAME}"))

    def restore(self, engine: Engine) -> Restored | None:
        """Load the newest whole checkpoint into the engine; None where none was ever written. Collective.

        A damaged one is named on stderr and the one before it is taken. Raises UserError when checkpoints were
        written but none is whole, or when the newest was made by another number of ranks or ZeRO stage.
        """
        ranks = engine.ranks
        verdict = ranks.from_main(self._choose(engine) if ranks.is_main else None)
        assert isinstance(verdict, dict)
        if "error" in verdict:
            raise UserError(str(verdict["error"]))
        if verdict["path"] is None:
            return None
        path = Path(verdict["path"])
        loaded, _ = engine.deepspeed.load_checkpoint(str(path), tag=ENGINE_TAG)
        if loaded is None:
            raise UserError(f"DeepSpeed found no engine state in {path}")
        values = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return Restored(int(verdict["step"]), values, load_file(path / "state.safetensors"))

    def _choose(self, engine: Engine) -> dict[str, Any]:
        damaged: list[str] = []
        for path in reversed(self.complete()):
            manifest = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
            problem = self._damage(path, manifest)
            if problem:
                damaged.append(problem)
                print(f"warning: damaged checkpoint left aside: {problem}", flush=True)
                continue
            here = {"world_size": engine.ranks.world_size, "zero_stage": engine.zero_stage}
            made = {key: manifest[key] for key in here}
            if made != here:
                return {"error": f"checkpoint {path} was made with {made} but this run has {here}: "
                        "start it the same way, or under another run name"}  # fmt: skip
            return {"path": str(path), "step": manifest["step"]}
        if damaged:
            return {"error": f"no whole checkpoint in {self.folder}: {'; '.join(damaged)}"}
        pointer = self.folder / POINTER
        if pointer.exists():
            return {"error": f"{pointer} names {pointer.read_text()} but {self.folder} holds no complete checkpoint; "
                    "restore it, or start the stage anew with --force"}  # fmt: skip
        return {"path": None}

    @staticmethod
    def _damage(path: Path, manifest: dict[str, Any]) -> str | None:
        for name, listed in manifest["files"].items():
            file = path / name
            if not file.exists():
                return f"{file} is missing"
            found = sha256_file(file)
            if found != listed["sha256"]:
                return f"{file} has SHA-256 {found}, its manifest says {listed['sha256']}"
        return None

    def clear(self) -> None:
        """Remove all checkpoints, e.g. when the stage has written its final weights."""
        shutil.rmtree(self.folder, ignore_errors=True)
