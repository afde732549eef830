from bench.measure import Series, device_sectors, in_turns, swap_pages


def test_a_series_is_its_median_and_middle_half() -> None:
    series = Series.of([5, 1, 2, 100, 3, 4, 6])
    assert (series.count, series.median, series.minimum, series.maximum) == (7, 4, 1, 100)
    assert (series.low, series.high) == (2.5, 5.5)
    assert str(series) == "4.0 (2.5-5.5)"
    assert Series.of([3]).high == 3


def test_in_turns_warms_up_once_and_takes_all_alike() -> None:
    calls: list[str] = []

    def measure(name: str, value: float) -> float:
        calls.append(name)
        return value

    result = in_turns({"a": lambda: measure("a", 1), "b": lambda: measure("b", 2)}, 3)
    assert calls == ["a", "b"] * 4
    assert result == {"a": [1, 1, 1], "b": [2, 2, 2]}


def test_the_kernel_s_counters() -> None:
    stat = (
        "   13705    13706  2212866    11243    41846    22420  5154474    96226        0    20500   107470"
    )
    assert device_sectors(stat) == (2212866, 5154474)
    assert swap_pages("pgpgin 1\npswpin 22\npswpout 333\n") == (22, 333)
