"""From clean text to shards: our shard stage, bare tokenizers, and the datasets.map path of transformers' run_mlm.

All work on the same texts with the same tokenizer and number of processes, and take turns, so that whatever else the
machine does falls on all of them. Every contestant is started as a fresh command; its seconds run from there until
its last process has ended, so that start-up and imports count for all alike ("working" leaves them out). On a machine
that is busy with other work, processor time, summed over all processes of a contestant, is disturbed least (Linux).

  ours               python -m data_prep shard: reads clean/, writes and hashes Arrow files; its encoder tokenises a
                     word once and remembers it, so it can be faster than the tokenizer that it uses
  encode_batch       `tokenizers` on texts that are in memory (loading them does not count), results thrown away
  encode_batch_fast  the same without offsets
  run_mlm            examples/pytorch/language-modeling/run_mlm.py: map(tokenise), map(group_texts), both batched with
                     num_proc, from texts in an Arrow file (writing that does not count) to the cache of `datasets`;
                     an example is a document, as in the Wikipedia of the hub
  run_mlm_lines      the same where an example is a line (paragraph), as run_mlm.py has it from text files

Run: python benchmarks/shards.py --corpus corpora/NAME [--json FILE]. Nothing is written into the corpus.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTESTANTS = ("ours", "encode_batch", "encode_batch_fast", "run_mlm", "run_mlm_lines")
CLOCKS = {"seconds": "wall", "processor": "CPU", "working": "wall without start-up"}
BATCH_CHARACTERS = 1 << 19
# One thread a process: cores are shared out by processes.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def processor_name() -> str:
    """The model name of the CPU, as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def bare(method: str, tokenizer_file: Path, texts_file: Path) -> dict[str, float]:
    """One process of `encode_batch` or `encode_batch_fast`, over its share of the texts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encode = getattr(tokenizer, method)
    started, started_work = time.perf_counter(), time.process_time()
    texts = texts_file.read_bytes().decode().split("\0")
    loaded, loaded_work = time.perf_counter(), time.process_time()
    tokens = 0
    batch: list[str] = []
    characters = 0
    for number, text in enumerate(texts, 1):
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or number == len(texts):
            tokens += sum(map(len, encode(batch, add_special_tokens=False)))
            batch, characters = [], 0
    return {
        "loading": loaded - started,
        "loading_work": loaded_work - started_work,
        "working": time.perf_counter() - loaded,
        "tokens": tokens,
    }


def run_mlm(
    corpus: Path, tokenizer_file: Path, dataset: Path, cache: Path, length: int, processes: int
) -> dict[str, float]:
    """What run_mlm.py does with a dataset of texts when it is not told to go line by line."""
    from datasets import load_from_disk
    from transformers import PreTrainedTokenizerFast

    started = time.perf_counter()
    texts = json.loads((corpus / "tokenizer" / "manifest.json").read_text())["results"]["special_token_texts"]
    names = {f"{role}_token": text for role, text in texts.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), **names)
    raw = load_from_disk(str(dataset))

    def tokenize(examples: dict[str, list[Any]]) -> Any:
        return tokenizer(examples["text"], return_special_tokens_mask=True)

    def group_texts(examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        concatenated = {key: list(chain(*examples[key])) for key in examples}
        total = len(concatenated[next(iter(examples))]) // length * length
        return {key: [t[i : i + length] for i in range(0, total, length)] for key, t in concatenated.items()}

    steps = {"batched": True, "num_proc": processes}
    tokenized = raw.map(tokenize, remove_columns=["text"], cache_file_name=str(cache / "tokenized.arrow"), **steps)
    grouped = tokenized.map(group_texts, cache_file_name=str(cache / "grouped.arrow"), **steps)
    return {"working": time.perf_counter() - started, "rows": len(grouped)}


def prepare(corpus: Path, work: Path, processes: int) -> dict[str, int]:
    """The texts as each contestant wants them, below `work`; how many there are."""
    from datasets import Dataset, disable_progress_bars

    from data_prep.corpus import Corpus
    from data_prep.documents import SPLITS, read_documents

    texts = [document.text for split in SPLITS for document in read_documents(Corpus(corpus).clean, split)]
    for number in range(processes):
        (work / f"texts-{number}").write_bytes("\0".join(texts[number::processes]).encode())
    disable_progress_bars()
    Dataset.from_dict({"text": texts}).save_to_disk(str(work / "run_mlm"))
    lines = [line for text in texts for line in text.split("\n")]
    Dataset.from_dict({"text": lines}).save_to_disk(str(work / "run_mlm_lines"))
    (work / "corpus").mkdir()
    for stage in ("clean", "tokenizer"):
        (work / "corpus" / stage).symlink_to((corpus / stage).resolve())
    return {"documents": len(texts), "lines": len(lines), "bytes": sum(len(text.encode()) for text in texts)}


def turn(name: str, args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Start a contestant and wait for its end: `seconds` on the wall, `processor` seconds, and what it told."""
    corpus, tokenizer_file = work / "corpus", args.corpus / "tokenizer" / "tokenizer.json"
    if name == "ours":
        settings = ["--row-length", str(args.row_length), "--workers", str(args.processes), "--force"]
        result, _ = run([["-m", "data_prep", "shard", "--corpus", str(corpus), *settings]])
        manifest = corpus / "shards" / f"documents-{args.row_length}" / "manifest.json"
        made = json.loads(manifest.read_text())
        return {**result, "working": made["seconds"], "tokens": tokens_in(manifest.parent)}
    if name.startswith("run_mlm"):
        with tempfile.TemporaryDirectory(dir=work) as cache:
            words = [str(corpus), str(tokenizer_file), str(work / name), cache, args.row_length, args.processes]
            result, told = run([[__file__, "--as", json.dumps([name, *words])]])
        return {**result, **told[0]}
    shares = [str(work / f"texts-{number}") for number in range(args.processes)]
    result, told = run([[__file__, "--as", json.dumps([name, str(tokenizer_file), share])] for share in shares])
    return {
        "seconds": result["seconds"] - max(process["loading"] for process in told),
        "processor": result["processor"] - sum(process["loading_work"] for process in told),
        "working": max(process["working"] for process in told),
        "tokens": sum(process["tokens"] for process in told),
    }


def run(commands: list[list[str]]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Run Python on all argument lists at once: the time it took, and the JSON in each one's last line of output."""
    before, started = processor_seconds(), time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        for words in commands
    ]
    outputs = [process.communicate()[0] for process in processes]
    seconds = time.perf_counter() - started
    for process in processes:
        if process.returncode:
            raise SystemExit(f"{process.args!r} ended with exit code {process.returncode}")
    # What a contestant's processes left behind becomes our child, and counts when it is waited for.
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    lines = [output.strip().split("\n")[-1] for output in outputs]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return {"seconds": seconds, "processor": processor_seconds() - before}, told


def tokens_in(shards: Path) -> int:
    """The tokens in rows of packing documents, [CLS] and [SEP] of every piece left away."""
    import pyarrow as pa

    tokens = 0
    for path in shards.glob("*/*.arrow"):
        with pa.memory_map(str(path)) as source:
            for lengths in pa.ipc.open_stream(source).read_all()["lengths"].chunks:
                tokens += int(lengths.values.to_numpy().sum()) - 2 * len(lengths.values)
    return tokens


def processor_seconds() -> float:
    """Processor time of all processes below this one that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def adopt_orphans() -> None:
    """Become the parent of processes below this one whose own parent ends (Linux's PR_SET_CHILD_SUBREAPER)."""
    if ctypes.CDLL(None).prctl(36, 1, 0, 0, 0):
        raise SystemExit("this kernel does not give orphans to a process that asks for them")


def act_as(name: str, *words: Any) -> None:
    """Be one process of a contestant; print what is to be told as a line of JSON."""
    if name.startswith("run_mlm"):
        corpus, tokenizer_file, dataset, cache, length, processes = words
        told = run_mlm(Path(corpus), Path(tokenizer_file), Path(dataset), Path(cache), length, processes)
    else:
        told = bare(name, Path(words[0]), Path(words[1]))
    print(json.dumps(told))


def summary(rounds: dict[str, list[dict[str, Any]]], texts: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Medians of every contestant, and of the ratios of our speed to its own, round by round."""
    tokens = rounds["encode_batch"][0]["tokens"]
    table: dict[str, dict[str, Any]] = {}
    for name, turns in rounds.items():
        seconds = statistics.median(turn["seconds"] for turn in turns)
        table[name] = {
            "megabytes_per_second": texts["bytes"] / seconds / 1e6,
            "tokens_per_second": tokens / seconds,
        }
        for clock in CLOCKS:
            ratios = [theirs[clock] / ours[clock] for ours, theirs in zip(rounds["ours"], turns, strict=True)]
            table[name][clock] = statistics.median(turn[clock] for turn in turns)
            table[name][f"ours_to_this_{clock}"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return table


def show(table: dict[str, dict[str, Any]]) -> None:
    print(f"{'':>18} {'wall s':>7} {'MB/s':>6} {'tokens/s':>10} {'CPU s':>7}   our speed to its (lowest - highest)")
    for name, row in table.items():
        ratios = [
            f"{label} {middle:.2f} ({lowest:.2f} - {highest:.2f})"
            for clock, label in CLOCKS.items()
            for middle, lowest, highest in [row[f"ours_to_this_{clock}"]]
        ]
        print(
            f"{name:>18} {row['seconds']:>7.2f} {row['megabytes_per_second']:>6.2f} {row['tokens_per_second']:>10,.0f}"
            f" {row['processor']:>7.2f}   {', '.join(ratios)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, help="a corpus with finished stages ingest and tokenizer")
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--json", type=Path, help="write settings, machine and every turn here")
    parser.add_argument("--as", dest="role", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        act_as(*args.role)
        return
    if args.corpus is None:
        parser.error("--corpus is needed")
    args.corpus = args.corpus.resolve()
    sys.path.insert(0, str(ROOT))

    adopt_orphans()
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory(prefix="shards-benchmark-") as folder:
        texts = prepare(args.corpus, Path(folder), args.processes)
        print(
            f"{texts['documents']:,} texts, {texts['bytes'] / 1e6:.1f} MB, rows of {args.row_length}, "
            f"{args.processes} processes, {args.rounds} rounds; start-up counts"
        )
        for _ in range(args.rounds):
            for name in CONTESTANTS:
                rounds[name].append(turn(name, args, Path(folder)))
    counts = {name: {turn["tokens"] for turn in rounds[name]} for name in CONTESTANTS[:3]}
    if len(set.union(*counts.values())) != 1:
        raise SystemExit(f"the contestants did not make the same tokens: {counts}")
    table = summary(rounds, texts)
    show(table)
    if args.json:
        report = {
            "settings": {key: str(value) for key, value in vars(args).items() if key not in ("json", "role")},
            "machine": {"processor": processor_name(), "cpus": os.cpu_count(), "system": platform.platform()},
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("tokenizers", "transformers", "datasets", "pyarrow")},
            },
            "texts": texts,
            "results": table,
            "rounds": rounds,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
