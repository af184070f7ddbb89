"""The loader: order, sharding, packing and the second length are pure functions, the same on every number of ranks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.corpus import Corpus as CorpusFolder
from data_prep.errors import UserError
from data_prep.rows.masking import MaskRules, mask_rows
from data_prep.rows.sentence_pairs import sentence_pairs
from data_prep.rows.shards import ShardReader
from pipeline.objectives.masked_lm import MaskedRows, mask_rules
from pipeline.objectives.packed_rows import packed_batch
from pipeline.recipes.recipe import parse_recipe
from pipeline.recipes.sections import Objective
from pipeline.runs.folder import RunFolder
from pipeline.runs.run import Run
from pipeline.training.batches import TwoLengths, epoch_rows, label_counts, permuted, prefetched
from pipeline.training.ranks import Ranks
from tests.ranks import wait_until
from tests.shard_files import SPECIAL, random_rows, write_shards

LENGTH, VOCAB = 32, 200
PACKINGS = ("documents", "sentences", "pairs")


def written(folder: Path, packing: str = "documents", padded: float = 0.2, row_length: int = LENGTH) -> Path:
    train = [random_rows(size, row_length, packing, VOCAB, seed=size, padded=padded) for size in (70, 21, 60)]
    splits = {"train": train, "val": train[1:2]}
    return write_shards(folder, splits, packing, VOCAB, continuation_ids=range(120, 200), longest_document=7)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardReader]:
    root = tmp_path_factory.mktemp("shards")
    return {packing: ShardReader(written(root / packing, packing), "train") for packing in PACKINGS}


@pytest.fixture(scope="module")
def reader(readers: dict[str, ShardReader]) -> ShardReader:
    return readers["documents"]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_an_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    order = permuted(seed, np.full(size, epoch), np.arange(size), size)
    assert (np.sort(order) == np.arange(size)).all()


def plain_permuted(seed: int, epoch: int, offset: int, size: int) -> int:
    """The same network in plain whole numbers."""

    def chain(*parts: int) -> int:
        state = 0
        for part in parts:
            z = (state + 0x9E3779B97F4A7C15 + part) % 2**64
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
            state = z ^ (z >> 31)
        return state

    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    value = offset
    while True:
        left, right = value >> half, value % 2**half
        for number in range(6):
            left, right = right, left ^ chain(seed, epoch, number, right) % 2**half
        value = left << half | right
        if value < size:
            return value


@given(st.integers(1, 10**12), st.integers(0, 2**63), st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_the_order_against_plain_numbers(size: int, seed: int, epochs: list[int], data: st.DataObject) -> None:
    offsets = [data.draw(st.integers(0, size - 1)) for _ in epochs]
    found = permuted(seed, np.array(epochs), np.array(offsets), size)
    assert found.tolist() == [plain_permuted(seed, e, o, size) for e, o in zip(epochs, offsets, strict=True)]


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = [permuted(seed, np.full(500, epoch), np.arange(500), 500) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, one in enumerate(orders):
        assert (one != np.arange(500)).mean() > 0.9
        for other in orders[i + 1 :]:
            assert (one != other).mean() > 0.9


def test_the_order_has_no_serial_correlation() -> None:
    order = permuted(3, np.zeros(20000, int), np.arange(20000), 20000)
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 4 / 20000**0.5


def test_any_slice_of_the_stream_stands_alone() -> None:
    epochs, rows = epoch_rows(5, 0, 1000, 77)
    for start in (0, 1, 76, 77, 500):
        some_epochs, some_rows = epoch_rows(5, start, 100, 77)
        assert (some_epochs == epochs[start : start + 100]).all()
        assert (some_rows == rows[start : start + 100]).all()


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_packed_batch_against_a_plain_loop(pieces: list[list[int]]) -> None:
    length = 48
    width = max(len(row) for row in pieces)
    lengths = np.array([row + [0] * (width - len(row)) for row in pieces], np.int32)
    documents, positions = packed_batch(lengths, length)
    assert documents.dtype == positions.dtype == np.int64
    for i, row in enumerate(pieces):
        expected_documents = [number + 1 for number, size in enumerate(row) for _ in range(size)]
        expected_positions = [position for size in row for position in range(size)]
        padding = [0] * (length - len(expected_documents))
        assert documents[i].tolist() == expected_documents + padding
        assert positions[i].tolist() == expected_positions + padding


@pytest.mark.parametrize(("packing", "sentence"), [("documents", "none"), ("pairs", "nsp")])
@pytest.mark.parametrize(("world", "micro"), [(1, 8), (2, 4), (4, 2), (2, 2), (8, 1), (1, 1)])
def test_the_global_batch_is_the_same_on_any_topology(
    readers: dict[str, ShardReader], packing: str, sentence: str, world: int, micro: int
) -> None:
    reader, objective = readers[packing], Objective(sentence=sentence, mask_unit="span")
    reference = MaskedRows(reader, objective, 9, 8, 8)
    loaders = [MaskedRows(reader, objective, 9, 8, micro, rank, world) for rank in range(world)]
    for step in (0, 3, 1000, 2**40):
        whole = reference.micro_batch(step, 0)
        parts = [loader.micro_batch(step, m) for m in range(8 // (world * micro)) for loader in loaders]
        for name in set(whole) - {"masked_positions", "document_ids"}:
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
        shifted = [part["masked_positions"] + i * micro * LENGTH for i, part in enumerate(parts)]
        assert torch.equal(torch.cat(shifted), whole["masked_positions"])


@pytest.mark.parametrize(("global_rows", "micro_rows"), [(8, 8), (24, 4), (5000, 5000), (3, 1)])
def test_any_step_takes_the_rows_of_its_place(reader: ShardReader, global_rows: int, micro_rows: int) -> None:
    """In whatever order the steps are asked for: nothing hangs on the ones before."""
    loader = MaskedRows(reader, Objective(), 9, global_rows, micro_rows)
    for step in (1000, 0, 999, 1, 512, 511, 0):
        for micro in {0, global_rows // micro_rows - 1}:
            epochs, rows = epoch_rows(9, step * global_rows + micro * micro_rows, micro_rows, reader.num_rows)
            assert equal(loader.micro_batch(step, micro), loader.rows_batch(epochs, rows))


def test_every_row_once_an_epoch(reader: ShardReader) -> None:
    seen = np.concatenate([epoch_rows(1, start, 8, reader.num_rows)[1] for start in range(0, reader.num_rows, 8)])
    assert (np.bincount(seen[: reader.num_rows], minlength=reader.num_rows) == 1).all()


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_a_batch_is_the_masked_rows(reader: ShardReader, unit: str) -> None:
    loader = MaskedRows(reader, Objective(mask_unit=unit, mask_rate=0.2), 9, 8, 8)
    batch = loader.micro_batch(2, 0)
    epochs, rows = epoch_rows(9, 16, 8, reader.num_rows)
    original, lengths = reader.rows(rows)
    assert torch.equal(torch.from_numpy(original).view(-1)[batch["masked_positions"]], batch["labels"])
    rules = MaskRules(0.2, unit, 0.8, 0.1)  # type: ignore[arg-type]
    wanted = mask_rows(original, rows, epochs, 9, rules, reader.special_tokens, VOCAB, np.arange(VOCAB) >= 120)
    assert np.array_equal(batch["input_ids"].numpy(), wanted.input_ids)
    assert np.array_equal(batch["masked_positions"].numpy(), wanted.positions)
    documents, positions = packed_batch(lengths, LENGTH)
    assert np.array_equal(batch["document_ids"].numpy(), documents)
    assert np.array_equal(batch["position_ids"].numpy(), positions)
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_mask_rules_are_the_objectives() -> None:
    objective = Objective(mask_rate=0.4, mask_unit="word", mask_token=0.7, random_token=0.2)
    assert mask_rules(objective) == MaskRules(0.4, "word", 0.7, 0.2)


@pytest.mark.parametrize("packing", ["sentences", "pairs"])
def test_sentences_see_the_whole_row(readers: dict[str, ShardReader], packing: str, tmp_path: Path) -> None:
    batch = MaskedRows(readers[packing], Objective(), 9, 64, 64).micro_batch(0, 0)
    _, lengths = readers[packing].rows(epoch_rows(9, 0, 64, readers[packing].num_rows)[1])
    used = lengths.sum(1)
    for i in range(64):
        assert batch["position_ids"][i].tolist() == [*range(used[i]), *[0] * (LENGTH - used[i])]
        assert batch["document_ids"][i].tolist() == [1] * used[i] + [0] * (LENGTH - used[i])
    full = ShardReader(written(tmp_path / "full", packing, padded=0), "train")
    batch = MaskedRows(full, Objective(), 9, 64, 64).micro_batch(0, 0)
    assert set(batch) == {"input_ids", "position_ids", "masked_positions", "labels"}
    assert (batch["position_ids"] == torch.arange(LENGTH)).all()


@pytest.mark.parametrize("task", ["nsp", "sop"])
def test_sentence_tasks(readers: dict[str, ShardReader], task: str) -> None:
    reader = readers["pairs"]
    batch = MaskedRows(reader, Objective(sentence=task), 9, 64, 64).micro_batch(5, 0)
    epochs, rows = epoch_rows(9, 5 * 64, 64, reader.num_rows)
    pairs = sentence_pairs(reader, rows, epochs, 9, task)  # type: ignore[arg-type]
    assert np.array_equal(batch["sentence_targets"].numpy(), pairs.labels)
    assert np.array_equal(batch["token_type_ids"].numpy(), pairs.token_types())
    shown = batch["input_ids"].clone().view(-1)
    shown[batch["masked_positions"]] = batch["labels"]
    assert np.array_equal(shown.view(64, LENGTH).numpy(), pairs.input_ids)
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_sentence_tasks_need_pairs(reader: ShardReader) -> None:
    with pytest.raises(UserError, match="has packing 'documents'"):
        MaskedRows(reader, Objective(sentence="sop"), 9, 8, 8)


def test_prefetching_changes_nothing(reader: ShardReader) -> None:
    loader = MaskedRows(reader, Objective(), 9, 8, 4)
    for accumulation in (1, 2):
        ahead = list(prefetched(loader, 3, 6, accumulation))
        assert [len(step) for step in ahead] == [accumulation] * 3
        for step, batches in enumerate(ahead, start=3):
            assert all(equal(batch, loader.micro_batch(step, micro)) for micro, batch in enumerate(batches))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_next_step_is_made_while_one_trains(accumulation: int) -> None:
    class Asked:
        def __init__(self) -> None:
            self.steps: list[int] = []

        def micro_batch(self, step: int, micro: int) -> dict[str, torch.Tensor]:
            self.steps.append(step)
            return {}

        def tokens(self, steps: int) -> int:
            return 0

    loader = Asked()
    steps = prefetched(loader, 0, 9, accumulation)
    next(steps)
    ahead = 2 if accumulation == 1 else 1
    wait_until(lambda: len(loader.steps) == accumulation * (1 + ahead), 10, "the steps ahead")
    steps.close()
    assert max(loader.steps) == ahead


def test_labels_that_count_are_counted_by_kind(readers: dict[str, ShardReader]) -> None:
    rows = MaskedRows(readers["sentences"], Objective(), 9, 16, 4)
    batches = [rows.micro_batch(0, micro) for micro in range(4)]
    masked = [len(batch["labels"]) for batch in batches]
    assert label_counts(batches) == {"num_items_in_batch": sum(masked)}
    assert len(set(masked)) > 1
    pairs = MaskedRows(readers["pairs"], Objective(sentence="sop"), 9, 8, 8).micro_batch(0, 0)
    pairs["sentence_targets"][:3] = -100
    expected = {"num_items_in_batch": len(pairs["labels"]), "num_sentences_in_batch": 5}
    # The order decides what is added up over the ranks.
    assert list(label_counts([pairs]).items()) == list(expected.items())
    assert label_counts([{"labels": torch.tensor([0.5, 1.0])}, {"labels": torch.tensor([2.0])}]) == {
        "num_items_in_batch": 3
    }


def test_a_failing_loader_fails_the_loop() -> None:
    class Broken:
        def micro_batch(self, step: int, micro: int) -> dict:
            raise ValueError(f"no step {step}")

        def tokens(self, steps: int) -> int:
            return 0

    with pytest.raises(ValueError, match="no step 0"):
        next(prefetched(Broken(), 0, 2, 1))


@pytest.fixture(scope="module")
def long_reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return ShardReader(written(tmp_path_factory.mktemp("long") / "s", row_length=4 * LENGTH), "train")


def test_two_lengths_take_turns_once(reader: ShardReader, long_reader: ShardReader) -> None:
    short = MaskedRows(reader, Objective(), 9, 8, 4)
    long = MaskedRows(long_reader, Objective(), 9, 2, 1)
    both = TwoLengths(short, long, switch_step=90)
    assert [both.tokens(steps) for steps in (0, 1, 90, 91, 100)] == [n * 8 * LENGTH for n in (0, 1, 90, 91, 100)]
    for step, micro in ((0, 0), (89, 1), (90, 0), (90, 1), (99, 0), (3, 1)):
        batch = both.micro_batch(step, micro)
        assert batch["input_ids"].numel() == 4 * LENGTH
        wanted = short.micro_batch(step, micro) if step < 90 else long.micro_batch(step - 90, micro)
        assert equal(batch, wanted)
    epochs, rows = epoch_rows(9, 0, 2, long_reader.num_rows)
    assert equal(both.micro_batch(90, 1), long.rows_batch(epochs[1:], rows[1:]))
    resumed = list(prefetched(both, 88, 93, 2))
    assert [batch["input_ids"].shape[1] for step in resumed for batch in step] == [LENGTH] * 4 + [4 * LENGTH] * 6


def test_two_lengths_have_equal_steps(reader: ShardReader, long_reader: ShardReader) -> None:
    short = MaskedRows(reader, Objective(), 9, 8, 4)
    with pytest.raises(AssertionError, match="other tokens"):
        TwoLengths(short, MaskedRows(long_reader, Objective(), 9, 8, 4), 90)


def test_what_a_recipe_trains_on(tmp_path: Path) -> None:
    """The objective: which shards, how many rows a rank, where the long rows begin."""
    from pipeline.stages.setup import read_setting

    recipe = parse_recipe(
        {
            "seed": 9,
            "corpus": {"name": "tiny", "row_length": LENGTH, "long_row_length": 4 * LENGTH, "long_fraction": 0.25},
            "batch": {"global_rows": 16, "micro_rows": 8},
            "pretrain": {"steps": 40},
            "search": {"max_steps": 30, "guard_steps": 20},
        },
        "test",
    )
    run = Run(recipe, {}, RunFolder(tmp_path / "run"), CorpusFolder(tmp_path / "corpus"))
    written(tmp_path / "corpus" / "shards" / f"documents-{LENGTH}")
    written(tmp_path / "corpus" / "shards" / f"documents-{4 * LENGTH}", row_length=4 * LENGTH)
    main = Ranks(0, 0, 2, torch.device("cpu"))
    loader = read_setting(run, main).objective.loader
    second = read_setting(run, replace(main, rank=1)).objective.loader
    train_rows = ShardReader(run.shards, "train")
    long_rows = ShardReader(run.corpus.shards("documents", 4 * LENGTH), "train")
    for step, wanted in (
        (29, MaskedRows(train_rows, recipe.objective, 9, 16, 16).micro_batch(29, 0)),
        (30, MaskedRows(long_rows, recipe.objective, 9, 4, 4).micro_batch(0, 0)),
    ):
        halves = [one.micro_batch(step, 0)["input_ids"] for one in (loader, second)]
        assert torch.equal(torch.cat(halves), wanted["input_ids"])
    assert loader.tokens(40) == 40 * 16 * LENGTH
    with pytest.raises(UserError, match="2 rows of 32 tokens a rank and micro-batch cannot become rows of 128"):
        read_setting(run, replace(main, world_size=8))
    alone = recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"long_row_length": None})})
    assert isinstance(read_setting(replace(run, recipe=alone), main).objective.loader, MaskedRows)


@pytest.mark.parametrize("packing", PACKINGS)
def test_rows_of_unknown_tokens_are_refused_before_training(tmp_path: Path, packing: str) -> None:
    rows = random_rows(400, LENGTH, packing, VOCAB)
    one = rows.ids[-1].copy()
    rows.ids[rows.ids > max(SPECIAL.values())] = SPECIAL["unk"]
    folder = write_shards(tmp_path / "lost", {"train": [rows]}, packing, VOCAB)
    with pytest.raises(UserError, match=r"lost/train: all tokens in 256 rows .* are special or unknown, so there is"):
        MaskedRows(ShardReader(folder, "train"), Objective(), 3, 4, 4)
    rows.ids[-1] = one
    folder = write_shards(tmp_path / "some", {"train": [rows]}, packing, VOCAB)
    MaskedRows(ShardReader(folder, "train"), Objective(), 3, 4, 4)
