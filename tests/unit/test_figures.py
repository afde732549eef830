"""scripts/figures.py: what the documentation quotes of a result."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from bench.results import Result

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return runpy.run_path(str(CHECKOUT / "scripts/figures.py"))


def result(table: str, *samples: dict[str, str | float], qemu: str = "10.0, KVM") -> Result:
    machine = {
        "ramshelf": "0.2.0",
        "cpu": "A",
        "cpus": 2,
        "ram_mib": 2048,
        "kernel": "6.12.0",
        "distribution": "Debian",
        "python": "3.13.0",
        "libvirt": "11.3.0",
        "qemu": qemu,
        "cgroup": 2,
        "devices": "loop devices",
    }
    return Result(
        table=table, title="", quick=False, seconds=1, machine=machine, samples=list(samples)
    )


def test_rows_in_which_all_is_0_are_counted_and_not_shown(figures: dict[str, Any]) -> None:
    start = result(
        "start",
        {"store": "ext4", "guest_mib": 1024, "written_mib": 0.0},
        {"store": "ext4", "guest_mib": 2048, "written_mib": 7.0},
        {"store": "xfs", "guest_mib": 1024, "written_mib": 0.0},
        {"store": "xfs", "guest_mib": 2048, "written_mib": 0.001},
    )
    assert figures["tables"](start).splitlines() == [
        "<details><summary>written MiB</summary>",
        "",
        "| store | 1024 MiB | 2048 MiB |",
        "| --- | --- | --- |",
        "| ext4 | 0 | 7 |",
        "",
        "One more, with 0 throughout.",
        "",
        "</details>",
    ]


def test_a_table_of_zeros_is_a_sentence(figures: dict[str, Any]) -> None:
    control = result("end", {"store": "ext4", "dirty_mib": 512, "control_mib": 0.0})
    assert figures["tables"](control) == "control MiB: 0 throughout.\n"


@pytest.mark.parametrize(
    ("qemu", "said"),
    [("10.0, KVM", "guests run by KVM"), ("7.2, no KVM (TCG)", "guests emulated (TCG, no KVM)")],
)
def test_a_machine_says_what_ran_its_guests(qemu: str, said: str, figures: dict[str, Any]) -> None:
    words = figures["_machine"](result("start", qemu=qemu))
    assert said in words
    assert f"QEMU {qemu.partition(',')[0]}, Python" in words


def test_a_swap_store_s_device_is_as_large_as_its_guests(figures: dict[str, Any]) -> None:
    header, _, *rows = figures["part"]("sizing").strip().splitlines()
    cells = [dict(zip(header.split(" | "), row.split(" | "), strict=True)) for row in rows]
    assert [each["device for swap"] for each in cells] == ["128 GiB", "512 GiB", "2048 GiB"]


def test_the_drawing_has_no_colour_of_the_light_theme_in_the_dark(figures: dict[str, Any]) -> None:
    assert figures["dark"]('<text fill="#1f2328"/>') == '<text fill="#f0f6fc"/>'
    with pytest.raises(KeyError):
        figures["dark"]('<text fill="#123456"/>')
