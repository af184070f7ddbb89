"""Typed recipes: what is trained, on what, for how long. Knows nothing of torch, DeepSpeed or the cluster.

A recipe is a TOML file; dotted overrides on the command line go on top. Everything wrong in it is reported
at once. Engine mechanics (ZeRO stage, precision, offload) live in ds_configs/, nodes and paths in slurm/.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_prep.manifest import UserError
from pipeline.layer_drop import DepthKind, DropSchedule, LayerDrop, Scaling, TimeKind, Unit, schedule_problems
from pipeline.model.shape import EncoderShape
from pipeline.step_costs import Phase
from pipeline.tickets.select import TicketRules

RECIPES = Path(__file__).parent / "recipes"

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """Text to train on: a file or folder (`path`) or a data set of the Hugging Face hub (`hub`).

    `weight`: how many times its train documents are taken. The rest is only needed where it cannot be recognised:
    `format`, the column `text` of JSONL and parquet, the hub's `config`, `split` and `revision`.
    """

    path: str | None = None
    hub: str | None = None
    name: str | None = None
    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    format: Literal["book", "lines", "wikiextractor", "wikidump", "jsonl", "parquet"] | None = None
    text: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source has either a path or a hub data set")
        if self.path is not None and (self.config or self.split or self.revision):
            raise ValueError("config, split and revision belong to hub data sets")
        if self.weight != 1 and self.name is None:
            raise ValueError("a source with a weight needs a name")
        for key in ("name", "text", "config", "split", "revision"):
            if "&" in (getattr(self, key) or ""):
                raise ValueError(f"{key} of a source must not hold an &")
        return self

    def spec(self) -> str:
        """As data_prep's command line takes it."""
        named = self.model_dump(exclude={"path", "hub", "weight"}, exclude_none=True)
        place = self.path if self.hub is None else f"hub:{self.hub}"
        return f"{place}?{'&'.join(f'{key}={value}' for key, value in named.items())}" if named else str(place)


class Corpus(Section):
    """Text and how it becomes rows. `sources` empty: the bundled sample.

    With `long_row_length` the last `long_fraction` of the steps train on rows of that length, as BERT did with 512
    after 128; a step then has fewer rows and as many tokens.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "sample"
    sources: list[str | Source] = []
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.01
    min_characters: Annotated[int, Field(ge=0)] = 100
    filters: Literal["default", "none"] = "default"
    language: str | None = None
    dedup: Literal["near", "exact", "none"] = "near"
    on_bad_input: Literal["stop", "skip"] = "stop"
    tokenizer: str | None = None
    tokenizer_kind: Literal["wordpiece", "bpe"] = "wordpiece"
    cased: bool = False
    vocab_size: Annotated[int, Field(ge=256)] = 2048
    packing: Literal["documents", "sentences", "pairs"] = "documents"
    row_length: Annotated[int, Field(ge=16, le=8192)] = 64
    long_row_length: Annotated[int, Field(ge=16, le=8192)] | None = None
    long_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    verify: Literal["full", "size"] = "full"

    @model_validator(mode="after")
    def lengths_fit(self) -> Self:
        if self.long_row_length is not None and (
            self.long_row_length <= self.row_length or self.long_row_length % self.row_length
        ):
            raise ValueError(
                f"long_row_length ({self.long_row_length}) is not a multiple of row_length ({self.row_length})"
            )
        return self

    @property
    def row_lengths(self) -> tuple[int, ...]:
        return (self.row_length,) if self.long_row_length is None else (self.row_length, self.long_row_length)


class Model(Section):
    """The dense encoder the search starts from."""

    layers: Count = 4
    hidden_size: Count = 128
    heads: Count = 4
    ffn: Count = 512
    norm: Literal["pre", "post"] = "pre"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_norm_eps: Rate = 1e-12
    initializer_range: Rate = 0.02
    token_types: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def heads_divide_hidden(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) is not a multiple of heads ({self.heads})")
        return self


class Objective(Section):
    """Masked language modelling: `mask_rate` of the tokens; of these so many become [MASK], so many random.

    `mask_unit`: single tokens, whole words, or spans of words. `sentence`: a second task on packing "pairs": BERT's
    next sentence, or ALBERT's sentence order.
    """

    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.3
    mask_unit: Literal["token", "word", "span"] = "token"
    mask_token: Fraction = 0.8
    random_token: Fraction = 0.1
    sentence: Literal["none", "nsp", "sop"] = "none"

    @model_validator(mode="after")
    def shares_fit(self) -> Self:
        if self.mask_token + self.random_token > 1 + 1e-9:
            raise ValueError(f"mask_token ({self.mask_token}) + random_token ({self.random_token}) exceed 1")
        return self


class Batch(Section):
    """`global_rows` make one optimiser step on any number of ranks; `micro_rows` bounds one forward pass."""

    global_rows: Count = 32
    micro_rows: Count = 32


class Optimizer(Section):
    """AdamW for everything, or Muon for the matrices inside the layers and AdamW (`adamw_lr`) for the rest."""

    name: Literal["adamw", "muon"] = "adamw"
    lr: Rate = 1e-3
    adamw_lr: Rate | None = None
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    eps: Rate = 1e-6
    momentum: Fraction = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    gradient_clipping: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def muon_is_not_clipped(self) -> Self:
        if self.name == "muon" and self.gradient_clipping:
            raise ValueError(
                f"gradient_clipping ({self.gradient_clipping}) must be 0 with muon: DeepSpeed clips after the "
                "update is orthogonalised, which would shrink every step instead of taming outliers"
            )
        if self.name == "adamw" and self.adamw_lr is not None:
            raise ValueError(f"adamw_lr ({self.adamw_lr}) belongs to muon; with adamw set lr")
        return self


class Schedule(Section):
    """Learning rate over the run: linear warm-up, then decay to `final_fraction` of the peak."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    decay: Literal["linear", "cosine", "constant"] = "linear"
    final_fraction: Fraction = 0.0


class Search(Section):
    """Early-bird search: which score, and when the ticket is drawn.

    `draw = "settle"`: when the masks stop changing (a queue of `queue` masks whose distances to the newest are all
    at most `threshold`, never before `guard_steps`), at the latest at `max_steps`; `"fixed"`: at `max_steps`.
    """

    enabled: bool = True
    score: Literal["l1", "taylor", "magnitude", "random"] = "taylor"
    draw: Literal["settle", "fixed"] = "settle"
    max_steps: Count = 400
    every_steps: Count = 5
    guard_steps: Annotated[int, Field(ge=0)] = 40
    queue: Annotated[int, Field(ge=2)] = 5
    threshold: Fraction = 0.1
    on_unsettled: Literal["draw", "stop"] = "draw"
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    l1_penalty: Annotated[float, Field(ge=0)] = 1e-4
    l1_lr: Rate = 1e-3

    @model_validator(mode="after")
    def guard_before_end(self) -> Self:
        if self.guard_steps >= self.max_steps:
            raise ValueError(f"guard_steps ({self.guard_steps}) must be below max_steps ({self.max_steps})")
        return self


class TicketBudget(Section):
    """How much is cut. `heads` and `neurons` are the fractions removed; `flops` instead is a budget to keep."""

    heads: Annotated[float, Field(ge=0, lt=1)] = 1 / 3
    neurons: Annotated[float, Field(ge=0, lt=1)] = 0.3
    head_scope: Literal["layer", "global"] = "layer"
    neuron_scope: Literal["layer", "global"] = "global"
    min_heads: Count = 1
    neuron_block: Count = 8
    flops: Annotated[float, Field(gt=0, le=1)] | None = None


class Pretrain(Section):
    """The run that counts. `rewind` says which weights the slim model starts from."""

    steps: Count = 1000
    rewind: Literal["init", "inherit", "reinit"] = "init"


class LayerDropping(Section):
    """Layers skipped in training; evaluation and the exported model always run all of them.

    Schedules and their formulas: `pipeline.layer_drop`. `theta`: keep probability of the layers dropped most, when
    they are dropped most; time "stages" has `stages` in its place. `during_search`: drop while the ticket is sought
    too. `after_search`: whether the slim model's schedule counts steps as its learning rate does, or anew from its
    own first step; the two differ for rewind "inherit".
    """

    enabled: bool = False
    time: TimeKind = "stages"
    depth: DepthKind = "alternate"
    unit: Unit = "sample"
    theta: float = 0.5
    gamma: float | None = None
    stages: tuple[float, ...] = ()
    dense_start: float = 0.0
    dense_end: float = 0.0
    scaling: Scaling = "block"
    during_search: bool = False
    after_search: Literal["continue", "restart"] = "continue"

    @model_validator(mode="after")
    def schedule_is_one(self) -> Self:
        problems = schedule_problems(
            self.time, self.depth, self.theta, self.gamma, self.stages, self.dense_start, self.dense_end
        )
        if self.time == "stages" and self.theta != type(self).model_fields["theta"].default:
            problems.append(f'theta is {self.theta}, wanted unset: time "stages" goes by stages')
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Evaluation(Section):
    every_steps: Count = 100
    rows: Count = 512


class Checkpointing(Section):
    every_steps: Count = 200
    keep: Count = 2


class Tracking(Section):
    """`wandb = "auto"`: online when somebody is logged in, else offline."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "earlybird"
    entity: str | None = None
    log_every_steps: Count = 10


class Finetune(Section):
    """Fine-tuning of the exported model; the rates apply to every task unless overridden."""

    epochs: Count = 3
    rows: Count = 32
    lr: Rate = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.06
    max_length: Annotated[int, Field(ge=16)] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Recipe(Section):
    """One run, whole."""

    seed: Annotated[int, Field(ge=0)] = 42
    corpus: Corpus = Corpus()
    model: Model = Model()
    objective: Objective = Objective()
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
    finetune: Finetune = Finetune()

    @model_validator(mode="after")
    def corpus_fits(self) -> Self:
        corpus, sentence = self.corpus, self.objective.sentence
        if sentence != "none" and corpus.packing != "pairs":
            raise ValueError(f'objective.sentence ({sentence!r}) needs corpus.packing "pairs", not {corpus.packing!r}')
        if sentence != "none" and self.model.token_types < 2:
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
    def sections_fit(self) -> Self:
        if self.search.enabled and self.search.max_steps > self.pretrain.steps:
            raise ValueError(
                f"search.max_steps ({self.search.max_steps}) exceeds pretrain.steps ({self.pretrain.steps})"
            )
        try:
            self.ticket_rules()
        except UserError as error:
            raise ValueError(f"ticket: {error}") from error
        searching = self.dropping(self.model.layers, searching=True) if self.search.enabled else None
        if searching:
            steps = self.search.max_steps
            ran = searching.executed(np.arange(steps), 1, rows=1).any(0)
            if not ran.all():
                raise ValueError(
                    f"layer_drop skips layer {int(ran.argmin()) + 1} in all {steps} steps of the search, so its units "
                    "would have no score: drop less, raise search.max_steps, or set layer_drop.during_search = false"
                )
        if not self.search.enabled and self.pretrain.rewind != "init":
            raise ValueError(f"pretrain.rewind ({self.pretrain.rewind!r}) needs a search; search.enabled is false")
        return self

    def dense_shape(self, vocab_size: int, pad_token_id: int) -> EncoderShape:
        """The dense encoder for a corpus with this vocabulary."""
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
            sentence_head=self.objective.sentence != "none",
        )

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
        phases, drop = self.phases(micro_rows), self.dropping(self.model.layers)
        if drop:
            for phase in phases:
                drop.check(phase.micro_rows)

    def warnings(self) -> list[str]:
        """What is allowed and may be regretted, a line each."""
        if not self.layer_drop.enabled or self.model.norm == "pre":
            return []
        return [
            'layer_drop with model.norm "post": Zhang and He (NeurIPS 2020) found that dropping layers of a post-LN '
            'model diverges or loses quality at large learning rates; they recommend pre-LN, model.norm = "pre"'
        ]

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
        return TicketRules(**self.ticket.model_dump(), row_length=self.corpus.row_length)


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by name (pipeline/recipes/NAME.toml) or path and apply `section.key=value` overrides.

    Values of overrides are TOML (numbers, true, "text", [lists]); a bare word is taken as text; `section.key=` takes
    the key out of the recipe, back to its default.
    Raises UserError listing every problem, one a line.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UserError(f"there is no recipe {name_or_path!r}; known are {known}, or give the path of a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    for override in overrides or []:
        apply_override(values, override)
    return parse_recipe(values, origin=str(path))


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
