"""The sections of a recipe, each with its defaults and its own rules. Knows nothing of files or of other sections."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.families import head as heads
from pipeline.families.table import FAMILIES
from pipeline.layer_drop.schedule import DepthKind, Scaling, TimeKind, Unit, schedule_problems


def _read_ratio(value: Any) -> Any:
    """ "1/3" as the number it means; TOML has no way to write it."""
    found = re.fullmatch(r"(\d+)/(\d+)", value.replace(" ", "")) if isinstance(value, str) else None
    return int(found[1]) / int(found[2]) if found and int(found[2]) else value


Share = Annotated[float, BeforeValidator(_read_ratio)]
Fraction = Annotated[Share, Field(ge=0, le=1)]
Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)]
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
    format: (
        Literal["book", "lines", "articles", "sentences", "wikiextractor", "wikidump", "jsonl", "parquet"] | None
    ) = None
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

    `cased` and `strip_accents` unset: a WordPiece vocabulary is trained on lower-cased text with its accents; of
    `tokenizer`, what its files say.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "sample"
    sources: list[str | Source] = []
    val_fraction: Annotated[Share, Field(gt=0, lt=1)] = 0.01
    min_characters: Annotated[int, Field(ge=0)] = 100
    filters: Literal["default", "none"] = "default"
    language: str | None = None
    dedup: Literal["near", "exact", "none"] = "near"
    repeated_lines: Annotated[int, Field(ge=0)] = 20
    on_bad_input: Literal["stop", "skip"] = "stop"
    tokenizer: str | None = None
    tokenizer_kind: Literal["wordpiece", "bpe"] = "wordpiece"
    cased: bool | None = None
    strip_accents: bool | None = None
    vocab_size: Annotated[int, Field(ge=256)] = 2048
    packing: Literal["documents", "sentences", "pairs"] = "documents"
    row_length: Annotated[int, Field(ge=16, le=8192)] = 64
    long_row_length: Annotated[int, Field(ge=16, le=8192)] | None = None
    long_fraction: Annotated[Share, Field(gt=0, lt=1)] = 0.1
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

    @model_validator(mode="after")
    def bytes_have_no_habits(self) -> Self:
        if self.tokenizer is None and self.tokenizer_kind == "bpe" and (self.cased is False or self.strip_accents):
            key = "cased (false)" if self.cased is False else "strip_accents (true)"
            raise ValueError(
                f'{key} is for WordPiece, tokenizer_kind "bpe" keeps every byte: leave one of the two away'
            )
        return self

    @property
    def row_lengths(self) -> tuple[int, ...]:
        return (self.row_length,) if self.long_row_length is None else (self.row_length, self.long_row_length)


class Model(Section):
    """The dense model that training starts from: drawn at random in this shape, or a `checkpoint`.

    `family`: our own encoder, or one of transformers'. `checkpoint`: a model folder or a name on the hub (of this
    `revision`); family and shape are then its own. `positions`: a table of learned ones, or rotary, with which
    masked-LM training leaves its first plateau much sooner.
    """

    family: str = "slim_bert"
    checkpoint: str | None = None
    revision: str | None = None
    layers: Count = 4
    hidden_size: Count = 128
    heads: Count = 4
    ffn: Count = 512
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["absolute", "rotary"] = "absolute"
    dropout: Annotated[Share, Field(ge=0, lt=1)] = 0.0
    attention_dropout: Annotated[Share, Field(ge=0, lt=1)] = 0.0
    layer_norm_eps: Rate = 1e-12
    initializer_range: Rate = 0.02
    token_types: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def one_start(self) -> Self:
        trained = [family.name for family in FAMILIES.values() if family.objectives]
        if self.family not in trained:
            raise ValueError(f"family {self.family!r} is none of {', '.join(trained)}")
        if self.revision is not None and self.checkpoint is None:
            raise ValueError("revision belongs to a checkpoint on the hub")
        free = {"checkpoint", "revision", "dropout", "attention_dropout"}
        ours = {"layer_norm_eps", "norm", "positions", "token_types"}
        said = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        if self.checkpoint is not None and (wrong := [name for name in said if name not in free]):
            raise ValueError(f"{', '.join(wrong)} cannot be said beside a checkpoint, whose shape is its own")
        if self.family != "slim_bert" and (wrong := [name for name in said if name in ours]):
            raise ValueError(f"{', '.join(wrong)} can be said of family slim_bert only, not of {self.family}")
        return self

    @model_validator(mode="after")
    def heads_divide_hidden(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) is not a multiple of heads ({self.heads})")
        if self.positions == "rotary":
            # No class of transformers has the rest, and a model leaves as one of its classes.
            if self.norm != "pre" or self.token_types:
                raise ValueError(
                    f'positions "rotary" go with norm "pre" and token_types 0, not {self.norm!r} and {self.token_types}'
                )
            if self.hidden_size // self.heads % 2:
                raise ValueError(f'positions "rotary" need heads of even size, not {self.hidden_size // self.heads}')
        return self


class Objective(Section):
    """What is learned. Masked language modelling: `mask_rate` of the tokens; of these so many become [MASK], so many
    random. Causal language modelling: the next token. Classification: the labels of [task].

    `mask_unit`: single tokens, whole words, or spans of words. `sentence`: a second task on packing "pairs": BERT's
    next sentence, or ALBERT's sentence order.
    """

    name: heads.Objective = "masked-lm"
    mask_rate: Annotated[Share, Field(gt=0, lt=1)] = 0.3
    mask_unit: Literal["token", "word", "span"] = "token"
    mask_token: Fraction = 0.8
    random_token: Fraction = 0.1
    sentence: Literal["none", "nsp", "sop"] = "none"

    @model_validator(mode="after")
    def shares_fit(self) -> Self:
        if self.mask_token + self.random_token > 1 + 1e-9:
            raise ValueError(f"mask_token ({self.mask_token}) + random_token ({self.random_token}) exceed 1")
        return self


class Task(Section):
    """Texts with labels, for the objective "classification": a task of GLUE by its `name`, or your own texts.

    `source`: a folder with GLUE's TSV files, or with files train.* and dev.* of your own (csv, tsv, jsonl), or a data
    set of the hub, `hub:NAME`; without it GLUE is taken from the hub. The rest is for own texts: the columns of one or
    two texts, found by their usual names where none are named, and of the label; which file or split `dev` is; and the
    metrics.
    """

    name: str | None = None
    source: str | None = None
    text: Words = ()
    label: str = "label"
    dev: str | None = None
    metrics: Words = ()
    max_length: Annotated[int, Field(ge=16)] = 128


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

    warmup_fraction: Annotated[Share, Field(ge=0, lt=1)] = 0.02
    decay: Literal["linear", "cosine", "constant"] = "linear"
    final_fraction: Fraction = 0.0


class Search(Section):
    """Early-bird search: which score, and when the ticket is drawn.

    `draw = "settle"`: when the masks stop changing (a queue of `queue` masks whose distances to the newest are all
    at most `threshold`, never before `guard_steps`), at the latest at `max_steps`; `"fixed"`: at `max_steps`.
    `run`: draw from the search of this other run, whose settings differ only in [ticket] and in when to draw.
    `epochs` in the place of `max_steps`: passes over the training rows. `lr`: the search's own peak learning rate.
    """

    enabled: bool = True
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    epochs: Rate | None = None
    score: Literal["l1", "taylor", "magnitude", "random"] = "taylor"
    draw: Literal["settle", "fixed"] = "settle"
    max_steps: Count = 400
    every_steps: Count = 5
    guard_steps: Annotated[int, Field(ge=0)] = 40
    queue: Annotated[int, Field(ge=2)] = 5
    threshold: Fraction = 0.1
    on_unsettled: Literal["draw", "stop"] = "draw"
    lr: Rate | None = None
    decay: Annotated[Share, Field(gt=0, lt=1)] | None = None
    l1_heads: Annotated[float, Field(ge=0)] = 1e-4
    l1_neurons: Annotated[float, Field(ge=0)] = 1e-4
    l1_lr: Rate = 1e-3
    l1_decay: Literal["constant", "linear"] = "constant"

    @model_validator(mode="before")
    @classmethod
    def one_penalty_is_two(cls, values: Any) -> Any:
        if isinstance(values, dict) and "l1_penalty" in values:
            raise ValueError(
                f"l1_penalty ({values['l1_penalty']}) is two keys now, l1_heads and l1_neurons: set each of them"
            )
        return values

    @model_validator(mode="after")
    def guard_before_end(self) -> Self:
        if self.guard_steps >= self.max_steps:
            raise ValueError(f"guard_steps ({self.guard_steps}) must be below max_steps ({self.max_steps})")
        return self


class TicketBudget(Section):
    """How much is cut. `heads` and `neurons` are the fractions removed; `flops` instead is a budget to keep."""

    heads: Annotated[Share, Field(ge=0, lt=1)] = 1 / 3
    neurons: Annotated[Share, Field(ge=0, lt=1)] = 0.3
    head_scope: Literal["layer", "global"] = "layer"
    neuron_scope: Literal["layer", "global"] = "global"
    min_heads: Count = 1
    neuron_block: Count = 8
    flops: Annotated[Share, Field(gt=0, le=1)] | None = None


class Pretrain(Section):
    """The run that counts: so many `steps`, or passes over the training rows (`epochs`).

    `rewind` says which weights the slim model starts from: those the search began with, those it had after
    `rewind_step` steps, those it ended with, with the optimiser's moments, or new ones.
    """

    steps: Count = 1000
    epochs: Rate | None = None
    rewind: Literal["init", "step", "inherit", "reinit"] = "init"
    rewind_step: Count | None = None

    @model_validator(mode="after")
    def rewind_is_one(self) -> Self:
        if (self.rewind == "step") != (self.rewind_step is not None):
            raise ValueError('rewind "step" and rewind_step go together')
        return self


class LayerDropping(Section):
    """Layers skipped in training; evaluation and the exported model always run all of them.

    Schedules and their formulas: `pipeline.layer_drop.schedule`. `theta`: keep probability of the layers dropped most,
    when they are dropped most; time "stages" has `stages` in its place. `during_search`: drop while the ticket is
    sought too. `after_search`: whether the slim model's schedule counts steps as its learning rate does, or anew from
    its own first step; the two differ for rewind "inherit".
    """

    enabled: bool = False
    time: TimeKind = "stages"
    depth: DepthKind = "alternate"
    unit: Unit = "layer"
    theta: float | None = None
    gamma: float | None = None
    stages: tuple[float, ...] = ()
    dense_start: Share = 0.0
    dense_end: Share = 0.0
    scaling: Scaling = "block"
    during_search: bool = False
    after_search: Literal["continue", "restart"] = "continue"

    @model_validator(mode="after")
    def schedule_is_one(self) -> Self:
        problems = schedule_problems(
            self.time, self.depth, self.theta, self.gamma, self.stages, self.dense_start, self.dense_end
        )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Evaluation(Section):
    """Validation every so many steps, or `every_epochs` passes over the training rows, and at the end."""

    every_steps: Count = 100
    every_epochs: Rate | None = None
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
