"""A folder's tokenizer as transformers reads it: the one module here that asks transformers, and only when called.

What tokenizer.json, tokenizer_config.json, config.json and older files say together is decided by transformers'
classes, each in its own way; so they are asked instead of their rules being told again. Knows nothing of the checks.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.errors import UserError

TOKENIZER_CONFIG = "tokenizer_config.json"
# These classes are whatever a tokenizer.json says.
_OF_ANY = ("", "PreTrainedTokenizer", "TokenizersBackend")
# What transformers reads beside the vocabulary itself.
COMPANIONS = (TOKENIZER_CONFIG, "config.json", "special_tokens_map.json", "added_tokens.json")


def companions(path: Path) -> dict[str, Path]:
    """By name, the files that have a say in a vocabulary; none for one that is not called as transformers calls it."""
    if path.name not in ("tokenizer.json", "vocab.json", "vocab.txt"):
        return {}
    return {name: path.with_name(name) for name in COMPANIONS if path.with_name(name).is_file()}


def said_in(path: Path | None) -> dict[str, Any]:
    """What a JSON file beside a vocabulary says; nothing where there is none."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); mend it, or move it away") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; mend it, or move it away")
    return content


def published_tokenizer(
    files: Mapping[str, Path], options: Mapping[str, bool | None], assumed: str = ""
) -> Tokenizer | None:
    """What `AutoTokenizer.from_pretrained` makes of a folder with these files by these names, with `options` on top.

    None where nothing says which class of transformers they are for; then `assumed` is that class, if it is given.
    Raises UserError for files that transformers cannot use, and for those that need code of their own.
    """
    given = {key: value for key, value in options.items() if value is not None}
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    said = said_in(files.get("config.json")) | said_in(files.get(TOKENIZER_CONFIG))
    named = str(said.get("tokenizer_class") or TOKENIZER_MAPPING_NAMES.get(str(said.get("model_type"))) or "")
    is_known = named.removesuffix("Fast") not in _OF_ANY
    reader = getattr(transformers, assumed) if assumed else transformers.AutoTokenizer
    if not (assumed or is_known or "tokenizer.json" in files):
        return None
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as folder, _quiet():
        for name, path in files.items():
            shutil.copyfile(path, Path(folder, name))
        return _read(reader, Path(folder), next(iter(files.values())), given)


def _read(reader: Any, folder: Path, path: Path, given: Mapping[str, Any]) -> Tokenizer:
    try:
        tokenizer = reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **given)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of many kinds, and tokenizers panics
        reason = " ".join(str(error).split()).replace(str(folder), str(path.parent))
        raise UserError(
            f"transformers cannot read {path} with what lies beside it: {reason}; mend the folder, or name a copy of "
            "the file alone"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UserError(
            f"transformers reads {path.parent} as {type(tokenizer).__name__}, which is not of the tokenizers library; "
            "wanted is one with a tokenizer.json"
        )
    return backend


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' remarks on configs that it does not know."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
