"""What every finished stage leaves behind: one manifest, written last, that says what made it.

Knows nothing of torch, recipes or training. A folder without a manifest is unfinished; a folder with one is
done, and done again only when the inputs or settings named in it change.
"""

import json
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import write_atomically

MANIFEST_NAME = "manifest.json"
_PACKAGES = (
    "torch", "deepspeed", "transformers", "datasets", "tokenizers", "ftfy", "rensa", "py3langid",
    "sentencex", "pyarrow", "wandb", "numpy",
)  # fmt: skip


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that holds `folder`, with `+changes` when it is not clean."""
    command = [
        "git",
        "-C",
        str(folder),
        "describe",
        "--always",
        "--dirty=+changes",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage folder, or None where the stage has not finished."""
    path = folder / MANIFEST_NAME
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete that folder to run the stage again") from error
    if not isinstance(manifest, dict) or not manifest.keys() >= {"settings", "inputs", "results"}:
        raise UserError(f"{path} is none that a stage has written; delete that folder to run the stage again")
    return manifest


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, each as `key: old -> new`."""
    lines = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differing_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


def is_done(folder: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """True when `folder` holds this very stage, made from these settings and inputs.

    Raises UserError when it was made from others, naming the keys that differ and the two ways out.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    wanted = json.loads(json.dumps({"settings": settings, "inputs": inputs}))
    changed = differing_keys({"settings": manifest["settings"], "inputs": manifest["inputs"]}, wanted)
    if changed:
        raise UserError(
            f"stage '{stage}' in {folder} was made from other settings or inputs: {'; '.join(changed)}. "
            "Use another run or corpus name, or pass --force to make it again"
        )
    return True


def write_manifest(
    folder: Path,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    started: float,
    results: Mapping[str, Any] | None = None,
) -> None:
    """Mark `folder` as done; the last write of a stage.

    `started` is the `time.time()` at which the stage began; `results` are the figures worth keeping.
    """
    manifest = {
        "stage": stage,
        "settings": settings,
        "inputs": inputs,
        "results": results or {},
        "seconds": round(time.time() - started, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": git_commit(Path(__file__).parent),
        "host": socket.gethostname(),
        "versions": versions(),
    }
    write_atomically(folder / MANIFEST_NAME, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
