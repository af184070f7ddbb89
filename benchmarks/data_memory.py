"""Peak memory of data preparation, and whether it grows with the corpus: every stage on a small and a large text.

    python benchmarks/data_memory.py --small PATH.. --large PATH.. [--workers 2] [--json FILE]

Each stage is a process tree of its own, watched from outside; the sum over the tree of resident sets (pages that
processes share are counted once for each) and of proportional sets (shared pages are divided).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

_INTERVAL_SECONDS = 0.05


def peak(command: list[str]) -> tuple[float, float, float]:
    """(RSS, PSS) in MB at their highest, summed over the process tree, and the seconds that the command took."""
    began = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    resident = proportional = 0.0
    while process.poll() is None:
        sets = []
        for member in [process, *process.children(recursive=True)]:
            try:
                sets.append(member.memory_full_info())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended between the two looks
        resident = max(resident, sum(s.rss for s in sets) / 1e6)
        proportional = max(proportional, sum(s.pss for s in sets) / 1e6)
        time.sleep(_INTERVAL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return resident, proportional, time.perf_counter() - began


def measure(sources: list[str], corpus: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Peaks of each stage on one text."""
    work = ["--workers", str(args.workers)]
    stages = {
        "ingest": ["--out", str(corpus), *work, *(word for path in sources for word in ("--source", path))],
        "tokenizer": ["--corpus", str(corpus), "--vocab-size", str(args.vocab_size)],
        "shard": ["--corpus", str(corpus), "--row-length", str(args.row_length), *work],
    }
    figures = {}
    for stage, words in stages.items():
        resident, proportional, seconds = peak([sys.executable, "-m", "data_prep", stage, *words])
        figures[stage] = {"rss_mb": resident, "pss_mb": proportional, "seconds": seconds}
    return figures


def characters(corpus: Path) -> int:
    """Characters of clean text in a corpus."""
    splits = json.loads((corpus / "clean" / "manifest.json").read_text())["results"]["splits"]
    return sum(split["characters"] for split in splits.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--large", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, sources in (("small", args.small), ("large", args.large)):
            corpus = Path(scratch) / name
            figures = measure(sources, corpus, args)
            results[name] = {"characters": characters(corpus), "stages": figures}
    grown = results["large"]["characters"] / results["small"]["characters"]
    print(f"\nclean text: {results['small']['characters']:,} and {results['large']['characters']:,} characters, "
          f"{grown:.2f} times as much; {args.workers} workers")  # fmt: skip
    print(f"{'stage':<10} {'RSS MB':>16} {'ratio':>7} {'PSS MB':>16} {'ratio':>7} {'seconds':>16}")
    tops = {name: {key: max(stage[key] for stage in result["stages"].values()) for key in ("rss_mb", "pss_mb")}
            for name, result in results.items()}  # fmt: skip
    for stage in results["small"]["stages"]:
        small, large = (results[name]["stages"][stage] for name in ("small", "large"))
        print(f"{stage:<10} " + " ".join(
            f"{small[key]:>7.0f} {large[key]:>8.0f} {large[key] / small[key]:>7.2f}" for key in ("rss_mb", "pss_mb")
        ) + f" {small['seconds']:>7.1f} {large['seconds']:>8.1f}")  # fmt: skip
    for key in ("rss_mb", "pss_mb"):
        small, large = tops["small"][key], tops["large"][key]
        print(f"highest of all stages, {key}: {small:.0f} and {large:.0f}, ratio {large / small:.3f}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
