"""Lines by bucket on disk come back whole and in order, however many runs they were written as."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import shuffle
from data_prep.errors import UserError
from data_prep.shuffle import RunWriter, read_bucket

LINES = st.lists(st.tuples(st.integers(0, 6), st.binary(max_size=40).map(lambda b: b.replace(b"\n", b""))), max_size=60)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, run_bytes=st.sampled_from([1, 50, 10_000]))
def test_every_bucket_holds_its_lines_in_order(
    lines: list[tuple[int, bytes]], run_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "_RUN_BYTES", run_bytes)
        writer = RunWriter(folder / "unit", 7)
        for bucket, line in lines:
            writer.add(bucket, line + b"\n")
        runs = writer.close()
    assert len(runs) <= max(1, len(lines)) if lines else not runs
    for bucket in range(7):
        assert read_bucket(runs, bucket) == [line for number, line in lines if number == bucket]


def test_a_corrupt_run_is_named(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "unit", 1)
    writer.add(0, b"text " * 100 + b"\n")
    (run,) = writer.close()
    content = bytearray(run.read_bytes())
    content[20] ^= 255
    run.write_bytes(content)
    with pytest.raises(UserError, match=r"unit-0000\.run is corrupt"):
        read_bucket([run], 0)
