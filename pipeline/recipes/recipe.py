"""Typed recipes: what is trained, on what, for how long. Knows nothing of torch, DeepSpeed or the cluster.

A recipe is a TOML file; dotted overrides on the command line go on top. Everything wrong in it is reported
at once. Engine mechanics (ZeRO stage, precision, offload) live in ds_configs/, nodes and paths in slurm/.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from data_prep.errors import UserError
from pipeline.families.shape import EncoderShape
from pipeline.families.table import FAMILIES
from pipeline.layer_drop.schedule import DropSchedule, LayerDrop
from pipeline.recipes.phases import Phase
from pipeline.recipes.sections import (
    Batch,
    Checkpointing,
    Corpus,
    Evaluation,
    LayerDropping,
    Model,
    Objective,
    Optimizer,
    Pretrain,
    Schedule,
    Search,
    Section,
    Task,
    TicketBudget,
    Tracking,
)
from pipeline.tickets.select import TicketRules

RECIPES = Path(__file__).parent
_DEEPEST = 10


class Recipe(Section):
    """One run, whole."""

    seed: Annotated[int, Field(ge=0)] = 42
    corpus: Corpus = Corpus()
    model: Model = Model()
    objective: Objective = Objective()
    task: Task = Task()
    batch: Batch = Batch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    search: Search = Search()
    ticket: TicketBudget = TicketBudget()
    pretrain: Pretrain = Pretrain()
    layer_drop: LayerDropping = LayerDropping()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def corpus_fits(self) -> Self:
        corpus, sentence = self.corpus, self.objective.sentence
        if sentence != "none" and corpus.packing != "pairs":
            raise ValueError(f'objective.sentence ({sentence!r}) needs corpus.packing "pairs", not {corpus.packing!r}')
        if sentence != "none" and self.model.checkpoint is None and self.model.token_types < 2:
            raise ValueError(
                f"objective.sentence ({sentence!r}) needs model.token_types 2 or more, not {self.model.token_types}"
            )
        if corpus.long_row_length is not None:
            ratio = corpus.long_row_length // corpus.row_length
            for key, rows in (("global_rows", self.batch.global_rows), ("micro_rows", self.batch.micro_rows)):
                if rows % ratio:
                    raise ValueError(
                        f"batch.{key} ({rows}) is not a multiple of {ratio}, by which corpus.long_row_length "
                        f"({corpus.long_row_length}) exceeds corpus.row_length ({corpus.row_length})"
                    )
        return self

    @model_validator(mode="after")
    def objective_fits(self) -> Self:
        name, family = self.objective.name, FAMILIES[self.model.family]
        if self.objective.sentence != "none" and (name != "masked-lm" or self.model.checkpoint is not None):
            raise ValueError(
                f"objective.sentence ({self.objective.sentence!r}) goes with masked-lm from random weights only"
            )
        if name == "classification":
            if self.model.checkpoint is None:
                raise ValueError('the objective "classification" needs model.checkpoint, a model to fine-tune')
            if self.task.name is None and self.task.source is None:
                raise ValueError('the objective "classification" needs task.name or task.source')
        elif self.model.checkpoint is not None and self.corpus.tokenizer is not None:
            raise ValueError("corpus.tokenizer beside model.checkpoint: a checkpoint brings its own tokenizer")
        elif self.task != Task():
            raise ValueError(f'[task] is for the objective "classification", not {name!r}')
        if self.model.checkpoint is None and name not in family.objectives:
            raise ValueError(f"{family.name} models learn {' or '.join(family.objectives)}, not {name}")
        if self.model.checkpoint is not None and self.layer_drop.enabled:
            raise ValueError("layer_drop is for models drawn at random, not for a model.checkpoint")
        if self.model.family != "slim_bert":
            self.check_family(self.model.family)
        return self

    def check_family(self, family: str) -> None:
        """Raise ValueError for what only our own encoder can do, in a recipe for another family."""
        if family == "slim_bert":
            return
        if self.optimizer.name == "muon":
            raise ValueError(f'optimizer.name "muon" knows the matrices of slim_bert only: use "adamw" for {family}')
        if self.layer_drop.enabled:
            raise ValueError(f"layer_drop works with slim_bert only, not with {family}")
        if self.objective.sentence != "none":
            raise ValueError(f"objective.sentence ({self.objective.sentence!r}) is for slim_bert, not for {family}")

    @model_validator(mode="after")
    def sections_fit(self) -> Self:
        counted = self.pretrain.epochs is None and self.search.epochs is None
        if counted and self.search.enabled and self.search.max_steps > self.pretrain.steps:
            raise ValueError(
                f"search.max_steps ({self.search.max_steps}) exceeds pretrain.steps ({self.pretrain.steps})"
            )
        try:
            self.ticket_rules()
        except UserError as error:
            raise ValueError(f"ticket: {error}") from error
        if not self.search.enabled and self.pretrain.rewind != "init":
            raise ValueError(f"pretrain.rewind ({self.pretrain.rewind!r}) needs a search; search.enabled is false")
        if self.search.run is not None and self.pretrain.rewind in ("step", "inherit"):
            raise ValueError(
                f"pretrain.rewind {self.pretrain.rewind!r} needs a search of its own: another run's (search.run) may "
                "have kept the weights of another step"
            )
        if counted and self.pretrain.rewind_step is not None:
            self._check_rewind_step(self.pretrain.rewind_step)
        if counted and self.pretrain.rewind == "inherit" and self.search.max_steps == self.pretrain.steps:
            raise ValueError(
                f"search.max_steps ({self.search.max_steps}) may leave none of pretrain.steps ({self.pretrain.steps}) "
                'to pretrain.rewind "inherit", which goes on where the search ends'
            )
        return self

    def _check_rewind_step(self, step: int) -> None:
        search = self.search
        if step > search.max_steps or step >= self.pretrain.steps:
            raise ValueError(
                f"pretrain.rewind_step ({step}) exceeds search.max_steps ({search.max_steps}) or leaves none of "
                f"pretrain.steps ({self.pretrain.steps})"
            )
        if search.draw == "settle" and step > search.guard_steps:
            raise ValueError(
                f"the search may settle before pretrain.rewind_step ({step}): at most search.guard_steps "
                f'({search.guard_steps}), or search.draw = "fixed"'
            )

    @model_validator(mode="after")
    def every_layer_is_trained(self) -> Self:
        if self.pretrain.epochs is not None or self.search.epochs is not None or self.model.checkpoint is not None:
            return self  # seen when rows and layers are counted
        drop = self.dropping(self.model.layers)
        if drop and drop.schedule.theta_at(self.pretrain.steps - 1) == 0:
            raise ValueError(
                "layer_drop leaves layers out to the last step, and the model would keep them: let the last of "
                f"layer_drop.stages be above 0, and begin within pretrain.steps ({self.pretrain.steps})"
            )
        searching = self.dropping(self.model.layers, searching=True) if self.search.enabled else None
        if searching:
            steps = np.arange(self.search.max_steps)
            waiting = int((searching.schedule.theta_at(steps) == 0).sum())
            never = ~searching.executed(steps, 1, rows=1).any(0)
            if waiting or never.any():
                what = f"layers in {waiting}" if waiting else f"layer {int(never.argmax()) + 1} in all"
                raise ValueError(
                    f"layer_drop leaves out {what} of the search's {len(steps)} steps, so that scores of its units "
                    "would not compare: drop less, or set layer_drop.during_search = false"
                )
        return self

    @property
    def tokenizer(self) -> str | None:
        """Where the corpus' vocabulary is loaded from: as [corpus] says, else the checkpoint's own; None: trained."""
        return self.corpus.tokenizer or self.model.checkpoint

    @property
    def row_length(self) -> int:
        """Tokens of a row, at most."""
        return self.task.max_length if self.objective.name == "classification" else self.corpus.row_length

    @property
    def predicted_share(self) -> float:
        """The share of the tokens that goes through a language-model head."""
        return self.objective.mask_rate if self.objective.name == "masked-lm" else 1.0

    def counted(self, steps_per_epoch: int) -> "Recipe":
        """The recipe with epochs as steps, at least one each. Raises UserError where these do not fit each other."""
        values = self.model_dump(mode="json")
        for section, epochs, steps in (
            ("pretrain", "epochs", "steps"),
            ("search", "epochs", "max_steps"),
            ("evaluation", "every_epochs", "every_steps"),
        ):
            given = values[section].pop(epochs)
            if given is not None:
                values[section][steps] = max(1, round(given * steps_per_epoch))
        return parse_recipe(values, origin=f"with {steps_per_epoch} steps an epoch")

    def dense_shape(self, vocab_size: int, pad_token_id: int) -> EncoderShape:
        """The dense encoder of family slim_bert for a corpus with this vocabulary."""
        return EncoderShape.uniform(
            num_layers=self.model.layers,
            num_heads=self.model.heads,
            ffn=self.model.ffn,
            hidden_size=self.model.hidden_size,
            vocab_size=vocab_size,
            max_positions=max(self.corpus.row_lengths),
            type_vocab_size=self.model.token_types,
            norm=self.model.norm,
            layer_norm_eps=self.model.layer_norm_eps,
            dropout=self.model.dropout,
            attention_dropout=self.model.attention_dropout,
            initializer_range=self.model.initializer_range,
            pad_token_id=pad_token_id,
            positions=self.model.positions,
            sentence_head=self.objective.sentence != "none",
        )

    def stock_sizes(self, vocab_size: int, special_tokens: Mapping[str, int]) -> dict[str, Any]:
        """The fields of a transformers config for a model drawn at random, under BERT's names."""
        model, special = self.model, special_tokens
        return {
            "vocab_size": vocab_size,
            "hidden_size": model.hidden_size,
            "num_hidden_layers": model.layers,
            "num_attention_heads": model.heads,
            "intermediate_size": model.ffn,
            "max_position_embeddings": max(self.corpus.row_lengths),
            "initializer_range": model.initializer_range,
            "pad_token_id": special["pad"],
            "bos_token_id": special["cls"],
            "eos_token_id": special["sep"],
            "cls_token_id": special["cls"],
            "sep_token_id": special["sep"],
        }

    def phases(self, micro_rows: int) -> list[Phase]:
        """The steps on rows of each length, in micro-batches of `micro_rows` of the short ones.

        Raises UserError where so many short rows do not make up whole long ones.
        """
        corpus, steps = self.corpus, self.pretrain.steps
        long_steps = 0 if corpus.long_row_length is None else round(corpus.long_fraction * steps)
        phases = [Phase(steps - long_steps, corpus.row_length, self.batch.global_rows, micro_rows)]
        if corpus.long_row_length is not None:
            ratio = corpus.long_row_length // corpus.row_length
            if micro_rows % ratio:
                raise UserError(
                    f"{micro_rows} rows of {corpus.row_length} tokens a rank and micro-batch cannot become rows of "
                    f"{corpus.long_row_length}: start fewer ranks, or make batch.global_rows "
                    f"({self.batch.global_rows}) a multiple of ranks x {ratio}"
                )
            rows = self.batch.global_rows // ratio, micro_rows // ratio
            phases.append(Phase(long_steps, corpus.long_row_length, *rows))
        return phases

    def check_rows(self, micro_rows: int) -> None:
        """Raise UserError where micro-batches of `micro_rows` short rows fit neither long rows nor layer dropping."""
        drop, begin = self.dropping(self.model.layers), 0
        for phase in self.phases(micro_rows):
            if drop:
                drop.check(phase.micro_rows, begin, begin + phase.steps)
            begin += phase.steps

    def warnings(self) -> list[str]:
        """What is allowed and may be regretted, a line each."""
        drop, found = self.dropping(self.model.layers), []
        if drop and self.model.norm == "post":
            found.append(
                'layer_drop with model.norm "post": Zhang and He (NeurIPS 2020) found that dropping layers of a '
                "post-LN model diverges or loses quality at large learning rates; they recommend pre-LN, "
                'model.norm = "pre"'
            )
        waits = drop.schedule.theta_at(np.arange(self.pretrain.steps)) == 0 if drop else np.zeros(1, bool)
        if (~waits[:-1] & waits[1:]).any() or (waits.any() and self.pretrain.rewind in ("step", "inherit")):
            found.append(
                "layer_drop leaves layers out after they were trained; they come back as they were, to others that "
                'have gone on. A network grows where they wait from the first step, without rewind "inherit"'
            )
        return found

    def dropping(self, num_layers: int, first_step: int = 0, searching: bool = False) -> LayerDrop | None:
        """The layer dropping of a model of so many layers that is trained from `first_step` on; None: none."""
        drop = self.layer_drop
        if not drop.enabled or (searching and not drop.during_search):
            return None
        begin = first_step if drop.after_search == "restart" else 0
        schedule = DropSchedule(
            total_steps=self.pretrain.steps - begin,
            num_layers=num_layers,
            first_step=begin,
            **drop.model_dump(include={"time", "depth", "theta", "gamma", "stages", "dense_start", "dense_end"}),
        )
        # A gate's gradient shall come from all rows of a step or from none: see docs/concepts.md.
        unit = "layer" if searching else drop.unit
        return LayerDrop(schedule, self.seed, unit, drop.scaling, once_a_step=searching)

    def ticket_rules(self) -> TicketRules:
        """The draw's rules in the ticket's own terms."""
        return TicketRules(**self.ticket.model_dump(), row_length=self.row_length)


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by name (pipeline/recipes/NAME.toml) or path and apply `section.key=value` overrides.

    A recipe that `extends` another one, by name or by a path from its own folder, has that one's values but for its own
    and for the keys it is `without`. The override `scale=NAME` puts pipeline/recipes/scales/NAME.toml under the others.
    Values of overrides are TOML (numbers, true, "text", [lists]); a bare word is taken as text; `section.key=` takes
    the key out of the recipe, back to its default.
    Raises UserError listing every problem, one a line.
    """
    path = _path_of(name_or_path, Path())
    values = _read(path)
    scales = [text.partition("=")[2].strip() for text in overrides or [] if text.partition("=")[0].strip() == "scale"]
    for scale in scales:
        values = _scaled(values, scale, from_checkpoint=any(x.startswith("model.checkpoint=") for x in overrides or []))
    for override in overrides or []:
        if override.partition("=")[0].strip() != "scale":
            apply_override(values, override)
    return parse_recipe(values, origin=str(path))


def _path_of(name_or_path: str, folder: Path) -> Path:
    path = folder / name_or_path if name_or_path.endswith(".toml") else RECIPES / f"{name_or_path}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UserError(f"there is no recipe {name_or_path!r}; known are {known}, or give the path of a .toml file")
    return path


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """The values of a recipe's file, those of the recipes it extends under its own."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    base, gone = values.pop("extends", None), values.pop("without", [])
    if base is None:
        if gone:
            raise UserError(f"{path} is `without` {gone} and extends no recipe that could have them")
        return values
    if not isinstance(base, str) or not isinstance(gone, list):
        raise UserError(f"{path}: extends is the name or path of a recipe, and without a list of section.key")
    if depth >= _DEEPEST:
        raise UserError(f"{path} extends a recipe that, in the end, extends this one again")
    found = _read(_path_of(base, path.parent), depth + 1)
    for key in gone:
        apply_override(found, f"{key}=")
    return _over(values, found)


def _over(values: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`values` on top of `base`, section by section."""
    merged = dict(base)
    for key, value in values.items():
        below = merged.get(key)
        merged[key] = _over(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _scaled(values: dict[str, Any], scale: str, from_checkpoint: bool) -> dict[str, Any]:
    """A recipe's values at another scale: with a corpus of its own, and long rows as many times as long as before.

    The model of a checkpoint stays as large as it is.
    """
    path = RECIPES / "scales" / f"{scale}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.toml")))
        raise UserError(f"there is no scale {scale!r}; known are {known}")
    small = _read(path)
    if values.get("objective", {}).get("name") == "classification":
        return _over({"pretrain": {"epochs": 1}}, values)  # the size of a checkpoint and of its task is given
    if from_checkpoint:
        del small["model"]
    scaled = _over(small, values)
    for section in small:  # a scale counts in steps
        for key in ("epochs", "every_epochs"):
            scaled[section].pop(key, None)
    corpus, before = scaled["corpus"], values.get("corpus", {})
    corpus["name"] = f"{before.get('name', 'sample')}-{scale}"
    if "long_row_length" in before:
        corpus["long_row_length"] = corpus["row_length"] * (before["long_row_length"] // before["row_length"])
    return scaled


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Validate a recipe's values. Raises UserError listing every problem, one a line."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "".join(f"\n  {_problem(item)}" for item in error.errors())
        noun = "problem" if error.error_count() == 1 else "problems"
        raise UserError(f"{error.error_count()} {noun} in recipe {origin}:{problems}") from None


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "recipe"
    if where == "finetune":
        return "finetune: fine-tuning has recipes of its own now: `finetune`, and those that extend it"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key (a misspelling?)"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] == "value_error" else f", got {item['input']!r}"
    return f"{where}: {message}{given}"


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in a recipe's values, in place. Raises UserError when it does not read so."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"an override reads section.key=value, got {override!r}")
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"override {override!r}: {section} is a value, not a section")
    if not text:
        values.pop(last, None)
        return
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text


def resolve_sources(data: str | None, recipe: Recipe) -> Recipe:
    """The recipe with DATA's text folders as sources.

    A folder that holds `wikipedia/extracted` and/or `books` contributes just these; any other folder or file is
    taken as it is. Raises UserError when the path does not exist.
    """
    if data is None:
        return recipe
    root = Path(data)
    if not root.exists():
        raise UserError(f"DATA={data} does not exist (looked in {os.getcwd()})")
    known = [root / "wikipedia" / "extracted", root / "books"]
    sources = [str(path) for path in known if path.exists()] or [str(root)]
    return recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"sources": sources})})
