from bench.measure import Series, number, rows, written_sectors


def test_a_series_is_its_median_and_range() -> None:
    series = Series.of([5, 1, 2])
    assert (series.count, series.median, series.low, series.high) == (3, 2, 1, 5)
    assert str(series) == "2 (1-5)"
    assert str(Series.of([3])) == "3"


def test_of_many_the_range_is_that_of_the_middle_half() -> None:
    series = Series.of([5, 1, 2, 100, 3, 4, 6, 7, 8])
    assert (series.count, series.median, series.low, series.high) == (9, 5, 3, 7)


def test_a_number_has_three_digits_that_matter() -> None:
    assert [number(value) for value in (1234.5, 56.78, 0.123, 2.0, 0.001, 0.0)] == [
        "1234",
        "56.8",
        "0.12",
        "2",
        "0",
        "0",
    ]


def test_samples_of_the_same_thing_make_a_row() -> None:
    samples: list[dict[str, str | float]] = [
        {"store": "ext4", "files": 5, "seconds": 1.0},
        {"store": "xfs", "files": 5, "seconds": 7.0},
        {"store": "ext4", "files": 5, "seconds": 3.0},
    ]
    first, second = rows(samples)
    assert first.keys == {"store": "ext4", "files": 5}
    assert (first.figures["seconds"].median, first.figures["seconds"].count) == (2, 2)
    assert (second.keys["store"], second.figures["seconds"].median) == ("xfs", 7)


def test_the_kernel_s_counters() -> None:
    stat = (
        "   13705    13706  2212866    11243    41846    22420  5154474    96226        0    20500 "
        "  107470"
    )
    assert written_sectors(stat) == 5154474
