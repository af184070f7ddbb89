"""Damage index.json and Arrow files at random and read them: right rows or one clear line, never anything else.

    python -m tests.data_prep.fuzz_shards --inputs 20000 --seed 0

Input number i of a seed is always the same. The attempts run in a child process, so that one that kills the
interpreter, hangs or eats memory is seen and counted, and the next ones are tried all the same. The exit code is 1
when any failed.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.files import sha256_file
from data_prep.rows.shards import ShardReader
from tests.shard_files import random_rows, write_shards

REPOSITORY = Path(__file__).parents[2]
KINDS = [("documents", 200), ("sentences", 70_000), ("pairs", 200), ("documents", 70_000)]
LENGTH, SIZES = 16, (12, 7)
SECONDS, MEMORY = 20, 8 << 30
ODD_VALUES = [
    None,
    True,
    -1,
    0,
    1,
    15,
    17,
    2**16,
    2**31,
    2**63,
    2**80,
    1.5,
    1e300,
    "",
    "x",
    [],
    {},
    [0],
    "train/a.arrow",
]


@dataclass
class Outcomes:
    """How many inputs were `refused` with a UserError or `read` with right rows, and what happened to the others."""

    refused: int = 0
    read: int = 0
    failures: list[str] = field(default_factory=list)


def damaged(content: bytes, pick: random.Random) -> bytes:
    """1 to 4 changes: flipped bits, bytes cut away, put in, copied about or set to telling values."""
    changed = bytearray(content)
    for _ in range(pick.choice([1, 1, 1, 2, 4])):
        at = pick.randrange(len(changed) + 1)
        size = pick.choice([1, 1, 2, 4, 8, pick.randrange(1, 64)])
        kind = pick.choice(["flip", "flip", "flip", "set", "set", "insert", "remove", "truncate", "copy", "digit"])
        if kind == "flip" and changed:
            for _ in range(pick.choice([1, 1, 1, 3, 8])):
                changed[pick.randrange(len(changed))] ^= 1 << pick.randrange(8)
        elif kind == "set":
            value = pick.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\1"])
            changed[at : at + size] = value * len(changed[at : at + size])
        elif kind == "insert":
            changed[at:at] = pick.randbytes(size)
        elif kind == "remove":
            del changed[at : at + size]
        elif kind == "truncate":
            del changed[at:]
        elif kind == "copy":
            source = pick.randrange(len(changed) + 1)
            changed[at : at + size] = changed[source : source + size]
        elif kind == "digit":
            digits = [i for i, byte in enumerate(changed) if 48 <= byte < 58]
            if digits:
                changed[pick.choice(digits)] = pick.randrange(48, 58)
    return bytes(changed)


def odd_index(content: bytes, pick: random.Random) -> bytes:
    """The index with one value, at any depth, replaced, removed or given twice."""
    index = json.loads(content)
    places: list[tuple[Any, Any]] = []
    waiting = [index]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        places += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys if isinstance(inner[key], dict | list)]
    inner, key = pick.choice(places)
    kind = pick.choice(["replace", "replace", "remove", "nudge", "double"])
    if kind == "remove":
        del inner[key]
    elif kind == "nudge" and isinstance(inner[key], int):
        inner[key] += pick.choice([-1, 1, 64, 1 << 32])
    elif kind == "double" and isinstance(inner, list):
        inner.append(inner[key])
    else:
        inner[key] = pick.choice(ODD_VALUES)
    return json.dumps(index).encode()


def attempt(number: int, seed: int, folder: Path) -> str:
    """ "refused" or "read"; raises when it is neither. `folder` holds the undamaged shards of every kind."""
    pick = random.Random(f"{seed}/{number}")
    kind = number % len(KINDS)
    original, copy = folder / str(kind), folder / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(original, copy)
    verify = pick.choice(["full", "size"])
    index_path, file_path = copy / "index.json", copy / "train" / f"train-{pick.randrange(len(SIZES)):05d}.arrow"
    exact = True
    if pick.random() < 0.3:
        damage = odd_index if pick.random() < 0.5 else damaged
        index_path.write_bytes(damage(index_path.read_bytes(), pick))
    else:
        before = file_path.read_bytes()
        file_path.write_bytes(damaged(before, pick))
        exact = verify == "full" or file_path.read_bytes() == before
        if pick.random() < 0.7:
            # An index that vouches for the damaged file: the Arrow reader is all that is left.
            exact = file_path.read_bytes() == before
            index = json.loads(index_path.read_bytes())
            for entry in index["splits"]["train"]["files"]:
                if entry["name"].endswith(file_path.name):
                    entry |= {"bytes": file_path.stat().st_size, "sha256": sha256_file(file_path)}
            index_path.write_text(json.dumps(index))
    try:
        reader = ShardReader(copy, "train", verify)  # type: ignore[arg-type]
        order = np.random.default_rng(number).permutation(reader.num_rows)
        ids, lengths = reader.rows(order)
        in_order, _ = reader.rows(np.arange(reader.num_rows))
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError("a message of more than one line") from error
        return "refused"
    assert (in_order[order] == ids).all()
    if exact:
        wanted, wanted_lengths = ShardReader(original, "train").rows(order)
        width = min(lengths.shape[1], wanted_lengths.shape[1])
        assert len(order) == sum(SIZES)
        assert np.array_equal(ids, wanted), "other ids than were written"
        assert np.array_equal(lengths[:, :width], wanted_lengths[:, :width])
        assert not lengths[:, width:].any()
    assert ids.shape[1] == LENGTH
    assert ids.min(initial=0) >= 0
    assert ids.max(initial=0) < reader.index["tokenizer_vocab_size"]
    assert (lengths[:, 0] >= 1).all()
    assert lengths.min(initial=0) >= 0
    assert (lengths.sum(1) <= LENGTH).all()
    return "read"


def child(first: int, inputs: int, seed: int, folder: Path) -> None:
    """One line on stdout an attempt; dies with what it finds, if that kills."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(first, inputs):
        signal.alarm(SECONDS)
        try:
            outcome = attempt(number, seed, folder)
        except Exception:
            outcome = json.dumps(traceback.format_exc())
        print(outcome, flush=True)


def fuzz(inputs: int, seed: int) -> Outcomes:
    """Try inputs 0 .. inputs - 1 of a seed."""
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as name:
        for kind, (packing, vocab_size) in enumerate(KINDS):
            rows = [random_rows(size, LENGTH, packing, vocab_size, seed=size) for size in SIZES]
            splits = {"train": rows, "val": rows[1:]}
            write_shards(Path(name) / str(kind), splits, packing, vocab_size, continuation_ids=range(100, 120))
        number = 0
        while number < inputs:
            command = [sys.executable, "-m", "tests.data_prep.fuzz_shards", "--child", name]
            command += ["--first", str(number), "--inputs", str(inputs), "--seed", str(seed)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            assert process.stdout
            for line in process.stdout:
                outcome = line.rstrip("\n")
                outcomes.refused += outcome == "refused"
                outcomes.read += outcome == "read"
                if outcome not in ("refused", "read"):
                    outcomes.failures.append(f"input {number}: {json.loads(outcome)}")
                number += 1
            process.stdout.close()
            if process.wait():
                ending = f"signal {-process.returncode}" if process.returncode < 0 else f"code {process.returncode}"
                outcomes.failures.append(f"input {number}: the process ended with {ending}")
                number += 1
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.first, args.inputs, args.seed, args.child)
        return 0
    outcomes = fuzz(args.inputs, args.seed)
    for failure in outcomes.failures:
        print(failure)
    print(
        f"{args.inputs:,} inputs (seed {args.seed}): {outcomes.refused:,} refused with one line, "
        f"{outcomes.read:,} read, {len(outcomes.failures):,} failed"
    )
    return bool(outcomes.failures)


if __name__ == "__main__":
    sys.exit(main())
