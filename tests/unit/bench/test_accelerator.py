import os

import pytest

from bench import __main__ as bench
from bench.measure import machine
from support.accelerator import accelerator
from support.domains import domain_xml


@pytest.mark.parametrize(("why", "chosen"), [("", "kvm"), ("there is no /dev/kvm", "qemu")])
def test_kvm_runs_the_guests_where_it_can(
    why: str, chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "why_not_kvm", lambda seconds: why)  # noqa: ARG005 - by keyword
    monkeypatch.setenv("GUESTS", "")  # undone at the end, as bench's own choice is with it
    del os.environ["GUESTS"]
    bench.choose_accelerator()
    assert accelerator() == chosen
    assert f"<domain type='{chosen}'>" in domain_xml("one")
    assert why in capsys.readouterr().out


def test_whoever_says_what_runs_the_guests_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUESTS", "qemu")
    monkeypatch.setattr(bench, "why_not_kvm", None)
    bench.choose_accelerator()
    assert accelerator() == "qemu"


def test_a_result_says_what_ran_its_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measure._version", lambda *_: "10.0")
    assert machine("kvm")["qemu"] == "10.0, KVM"
    assert machine("qemu")["qemu"] == "10.0, no KVM (TCG)"
