"""`xml apply` on whole domains as they are found; review what it makes with --regenerate."""

from pathlib import Path

import pytest

from ramshelf.core.domain.backing import LIKE_NOVA, Backing, Support, make_file_backed

SUPPORT = Support(libvirt=(9, 0, 0), qemu=(7, 2, 0), kernel=(6, 1, 0), fstype="tmpfs")
BACKINGS = {"default": Backing(), "nova": LIKE_NOVA}
INPUTS = sorted(Path(__file__).parent.glob("xml/*.in.xml"))


def test_there_are_inputs() -> None:
    assert INPUTS


@pytest.mark.parametrize("backing", BACKINGS)
@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name.removesuffix(".in.xml"))
def test_golden(path: Path, backing: str, pytestconfig: pytest.Config) -> None:
    result = make_file_backed(path.read_bytes(), BACKINGS[backing], SUPPORT)
    notes = "".join(f"<!-- {note.code}: {note.sentence} -->\n" for note in result.notes)
    golden = path.with_name(path.name.replace(".in.xml", f".{backing}.xml"))
    if pytestconfig.getoption("regenerate"):
        golden.write_text(result.xml + notes)
    assert result.xml + notes == golden.read_text()
