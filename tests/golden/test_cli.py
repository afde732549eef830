"""What the command line says where it needs no host; review what it says with --regenerate."""

import shlex
from pathlib import Path

import pytest

from ramshelf.cli import main
from ramshelf.cli.doctor import _lines, _show
from ramshelf.cli.status import screen as screen_of
from ramshelf.core.doctor.checks import check
from ramshelf.core.doctor.facts import BadConfig
from ramshelf.core.findings import Finding, Severity
from ramshelf.core.host import Unknown
from ramshelf.core.record import replace
from ramshelf.core.status import AgentState, summarise
from ramshelf.core.store.find import NoStore
from support.good_host import GOOD, STORE, with_hook

SCREENS = Path(__file__).parent / "cli"
GROUPS = ("", "store ", "hook ", "guest ", "xml ", "placement ", "agent ")


def screen(argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The command line as it is typed, what it answers, and its exit status."""
    status = main.run(shlex.split(argv))
    out, err = capsys.readouterr()
    return f"$ ramshelf {argv}\n{out}{err}(exit status {status})\n"


def compare(name: str, text: str, pytestconfig: pytest.Config) -> None:
    """Hold a text against its file."""
    golden = SCREENS / name
    if pytestconfig.getoption("regenerate"):
        SCREENS.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_the_help_of_each_group(
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = "\n".join(screen(f"{group}--help", capsys) for group in GROUPS)
    compare(f"help-{columns}.txt", text, pytestconfig)


REFUSALS = (
    "agnet",
    "start web1",
    "guest strat web1",
    "guest stop",
    "guest stop web1 --timeout 5s",
    "guest stop web1 --timeout 0",
    "guest start ./nothing.xml",
    "guest start ./plain.txt",
    "guest start ./",
    "xml apply nothing.xml",
    "xml apply plain.txt",
    "xml apply network.xml",
    "store create",
    "store create --kind swap",
    "store create --kind swap --size 64 --file /srv/a",
    "store create --kind swap --file /srv/a",
    "store create --kind swap --size 1G --file /srv/a --device /dev/vdb",
    "store create --kind ram",
    "store create --kind ram --size 1G --file /srv/a",
    "store create --kind ram --size 1G --tmpfs-size 2G",
    "store create --kind swap --fs xfs --device /dev/vdb",
    "store create --kind dax --size 1G --file /srv/a",
    "store create --kind disk --device /dev/vdb --wipe /dev/vdc",
    "store create --kind swap --size 1G --file srv/a",
    "hook bypass",
    "hook bypass --for 5",
    "guest migrate web1 host2",
    "explain not-mounted",
    "explain capacity.exeeded",
    "explain xyz",
)


def test_what_makes_no_sense_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    (tmp_path / "plain.txt").write_text("root:x:0:0\n")
    (tmp_path / "network.xml").write_text("<network/>\n")
    monkeypatch.chdir(tmp_path)
    text = "\n".join(screen(argv, capsys) for argv in REFUSALS)
    compare("refusals.txt", text, pytestconfig)


EXPLAINED = ("explain store.not-mounted", "explain [capacity.exceeded]", "explain backing")


def test_what_codes_mean(capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config) -> None:
    text = "\n".join(screen(argv, capsys) for argv in EXPLAINED)
    compare("explain.txt", text, pytestconfig)


def test_the_doctor_of_a_host_with_two_faults(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    facts = replace(
        GOOD,
        kvm="there is no /dev/kvm",
        config=BadConfig(reason="/etc/nova/nova.conf is wrong", code="config.value"),
    )
    _show(check(facts))
    compare("doctor.txt", capsys.readouterr().out, pytestconfig)


def test_the_status_of_three_hosts(
    pytestconfig: pytest.Config,
) -> None:
    """A good one with an agent, one where little is known, and one with nothing."""
    little = replace(
        with_hook(seen=None),
        hypervisor=Unknown("libvirt cannot be reached"),
        store=Unknown("the store at /var/lib/libvirt/qemu/ram does not answer"),
        guests=Unknown("libvirt cannot be reached"),
    )
    nothing = replace(
        with_hook(installed=False),
        store=replace(
            STORE,
            store=NoStore(
                code="store.root-file-system", sentence="There is no store.", hint="Make one."
            ),
            usage=Unknown("there is no store"),
        ),
        guests=(),
    )
    texts = [
        screen_of(summarise(GOOD, AgentState(installed=True, process=812))),
        screen_of(summarise(little, AgentState(installed=True, process=None))),
        screen_of(summarise(nothing, AgentState(installed=False, process=None))),
    ]
    compare("status.txt", "\n\n---\n\n".join(texts) + "\n", pytestconfig)


def test_a_hint_is_as_bright_as_what_it_is_for() -> None:
    finding = Finding(code="a.b", severity=Severity.WARNING, sentence="It is bad.", hint="Mend it.")
    assert _lines(finding).endswith("\x1b[2m  [a.b]\x1b[0m\n           Mend it.")
