import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.config import Config, contradictions
from ramshelf.core.errors import ConfigError
from ramshelf.core.setting import Setting, file_backed_memory_mib, nova_files, winning

NOVA = "/etc/nova/nova.conf"
OWN = "/etc/ramshelf/ramshelf.conf"


def setting(
    value: str, *, path: str = NOVA, section: str = "libvirt", key: str = "file_backed_memory"
) -> Setting:
    return Setting(path=path, section=section, key=key, value=value, line=1)


@pytest.mark.parametrize(
    ("files", "settings", "mib"),
    [
        ((), (), None),
        ((OWN,), (), None),
        ((NOVA,), (), 0),
        ((NOVA, OWN), (), 0),
        ((NOVA,), (setting("4096"),), 4096),
        ((NOVA,), (setting("0"),), 0),
        ((NOVA, OWN), (setting("4096"), setting("0", path=OWN)), 0),
        ((NOVA, OWN), (setting("8192", path=OWN),), 8192),
        ((NOVA,), (setting(""),), 0),
        (("/x.conf",), (), 0),
        (("/x.conf",), (setting("yes", path="/x.conf", section="ramshelf", key="strict"),), None),
    ],
)
def test_off_and_unset(
    files: tuple[str, ...], settings: tuple[Setting, ...], mib: int | None
) -> None:
    assert file_backed_memory_mib(files, settings) == mib


@pytest.mark.parametrize("value", ["-1", "4G", "1.5", "$total", "yes"])
def test_a_wrong_value_names_file_section_and_key(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"nova.conf line 1: \[libvirt\] file_backed_memory"
    ) as caught:
        file_backed_memory_mib((NOVA,), (setting(value),))
    assert caught.value.facts == {"path": NOVA, "section": "libvirt", "key": "file_backed_memory"}


@given(st.integers(min_value=0))
def test_every_number_of_mib_is_read(mib: int) -> None:
    assert file_backed_memory_mib((NOVA,), (setting(f" {mib} "),)) == mib


def test_only_zero_is_off() -> None:
    assert Config(file_backed_memory_mib=0).off
    assert not Config(file_backed_memory_mib=1).off
    assert not Config(file_backed_memory_mib=None).off


@pytest.mark.parametrize(
    ("path", "own_key", "is_nova"),
    [
        ("/etc/nova/nova.conf", False, True),
        ("/etc/nova/nova.conf", True, True),
        ("/etc/nova/nova.conf.d/10-memory.conf", True, True),
        ("/etc/kolla/nova-compute/nova.conf", False, True),
        ("/etc/ramshelf/ramshelf.conf", False, False),
        ("/etc/ramshelf/ramshelf.conf.d/10.conf", False, False),
        ("/home/me/my.conf", False, True),
        ("/home/me/my.conf", True, False),
    ],
)
def test_whose_file_it_is(path: str, own_key: bool, is_nova: bool) -> None:  # noqa: FBT001 - cases
    settings = (setting("1", path=path, section="ramshelf", key="strict"),) if own_key else ()
    assert nova_files((path,), settings) == ((path,) if is_nova else ())


def test_the_last_setting_wins() -> None:
    assert winning([setting("1"), setting("2", path=OWN)])["libvirt.file_backed_memory"].path == OWN


def test_contradictions_are_options_set_differently_the_winner_last() -> None:
    places = (setting("1"), setting("1", path=OWN), setting("2", path=OWN))
    names = ["libvirt.virt_type", "libvirt.file_backed_memory"]
    assert contradictions(places, names) == (places,)
    assert contradictions(places[:2], names) == ()
    assert contradictions(places, ["libvirt.virt_type"]) == ()


def test_a_printed_config_keeps_nova_s_secrets() -> None:
    secret = setting("hunter2", section="placement", key="password")
    config = Config(placement={"password": "hunter2"}, settings={secret.name: secret})
    assert "hunter2" not in repr(config)
