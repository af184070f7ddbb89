"""The files of a model folder in transformers' form, found here or on the Hugging Face hub. Knows no torch."""

import json
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.files import sha256_file

# Of a model folder, besides its weights: the last have a say in what tokenizer transformers makes.
FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint: `name` itself, or what the hub has under that name, downloaded once.

    Raises UserError where there is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model.checkpoint: there is no folder {name}")
    # Imported here: a second that runs without a name on the hub need not wait.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", "*.index.json", *FILES])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"model.checkpoint: {name!r} is no folder here, and the Hugging Face hub gave none "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model folder. Raises UserError where it has none; pickles can run code and are not read."""
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if any(folder.glob("*.bin")):
        raise UserError(
            f"{folder} has no *.safetensors, and pickled weights are not read: make a folder of it that has them with "
            f"`python -m pipeline convert {folder} NEW_FOLDER`, and name that one"
        )
    raise UserError(f"{folder} has no *.safetensors; load the model where it is whole and save_pretrained it again")


def read_config(folder: Path) -> dict[str, Any]:
    """What a model folder's config.json says. Raises UserError where it is no JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not a model folder: it has no config.json; name a folder that a model and its tokenizer were "
            "saved to with save_pretrained, or finish the export stage of the run that makes it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch or export it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object; fetch or export it again")
    return config


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that has a say in what a training of this model becomes."""
    files = [path for name in FILES if (path := folder / name).is_file()] + sorted(folder.glob("*.safetensors"))
    return {path.name: sha256_file(path) for path in files}
