import pytest

from data_prep.formatting import duration, share_of, short, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (0.5, "0.5"),
        (950, "950"),
        (999, "999"),
        (999.4, "999.4"),
        (1000, "1 k"),
        (12_340, "12.34 k"),
        (999_499, "999.5 k"),
        (999_960, "1 M"),
        (4_500_000, "4.5 M"),
        (1.9e9, "1.9 G"),
        (3.21e9, "3.21 G"),
        (-2500, "-2.5 k"),
    ],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (8.24, "8.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (725, "12 min 05 s"),
        (3599.6, "1 h 00 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_shares() -> None:
    assert (size(0), size(999), size(1_500_000)) == ("0 B", "999 B", "1.5 MB")
    assert (share_of(1, 3), share_of(0, 1), share_of(0, 0)) == ("33.33%", "0.00%", "-")
