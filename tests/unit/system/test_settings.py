import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.config import Config
from ramshelf.core.errors import ConfigError
from ramshelf.core.setting import file_backed_memory_mib
from ramshelf.system import settings
from ramshelf.system.configfiles import existing_files, read_settings
from ramshelf.system.settings import load_config


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def nova(tmp_path: Path) -> Path:
    return tmp_path / "nova.conf"


def refused(path: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    assert path in caught.value.sentence
    assert caught.value.exit_status == 255
    return caught.value


def test_nova_conf_as_nova_reads_it(nova: Path) -> None:
    write(
        nova,
        """
[DEFAULT]
ram_allocation_ratio = 1.0
reserved_host_memory_mb = 0
my_ip = 192.0.2.1
debug = true
[LIBVIRT]
virt_type = qemu
file_backed_memory = "1048576"
connection_uri = qemu+tcp://${my_ip}/system?a=100%&b=$$x
[placement]
auth_url = http://controller/identity
password = a$b
""",
    )
    config = load_config([str(nova)])
    assert config == Config(
        file_backed_memory_mib=1048576,
        virt_type="qemu",
        connection_uri="qemu+tcp://192.0.2.1/system?a=100%&b=$x",
        ram_allocation_ratio=1.0,
        reserved_host_memory_mib=0,
        placement={"auth_url": "http://controller/identity", "password": "a$b"},
        files=(str(nova),),
        nova_files=(str(nova),),
        settings=config.settings,
    )
    assert str(config.settings["libvirt.virt_type"]) == f"{nova} line 8: [libvirt] virt_type = qemu"


def test_ramshelf_conf_alone_leaves_the_size_to_the_store(tmp_path: Path) -> None:
    own = write(
        tmp_path / "ramshelf.conf", "[ramshelf]\nstrict = yes\nhost_reserved_memory_mb = 0\n"
    )
    config = load_config([own])
    assert (config.file_backed_memory_mib, config.off) == (None, False)
    assert (config.host_reserved_mib, config.nova_files) == (0, ())


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", "none"),
        ("[placement]\nregion_name = RegionOne\n", "none"),
        ("[placement]\nauth_type = password\n", "remote"),
        ("[placement]\nauth_section = keystone_authtoken\n", "remote"),
        ("[placement]\nauth_type = password\n[ramshelf]\nplacement = none\n", "none"),
        ("[placement]\nauth_type = password\n[ramshelf]\nplacement = embedded\n", "embedded"),
        ("[ramshelf]\nplacement = remote\n", "remote"),
    ],
)
def test_which_placement(nova: Path, text: str, mode: str) -> None:
    config = load_config([write(nova, text)])
    assert config.placement_mode == mode
    assert (config.placement_owner, config.placement_required) == (False, False)


def test_an_unknown_placement_is_refused(nova: Path) -> None:
    assert refused(write(nova, "[ramshelf]\nplacement = local\n")).code == "config.value"


def test_a_nova_conf_that_does_not_set_it_is_off(nova: Path) -> None:
    assert load_config([write(nova, "[libvirt]\nvirt_type = kvm\n")]).off


def test_empty_values_are_nova_s_defaults(nova: Path) -> None:
    config = load_config(
        [
            write(
                nova,
                "[DEFAULT]\nreserved_host_memory_mb =\nram_allocation_ratio = 0.0\n"
                "[libvirt]\nconnection_uri =\nfile_backed_memory =\n",
            )
        ]
    )
    assert (config.reserved_host_memory_mib, config.ram_allocation_ratio) == (512, None)
    assert (config.connection_uri, config.file_backed_memory_mib) == ("qemu:///system", 0)


def test_the_later_file_wins_and_the_contradiction_is_kept(tmp_path: Path) -> None:
    first = write(tmp_path / "nova.conf", "[libvirt]\nfile_backed_memory = 1\nvirt_type = kvm\n")
    second = write(
        tmp_path / "ramshelf.conf", "[libvirt]\nfile_backed_memory = 2\nvirt_type = kvm\n"
    )
    assert load_config([second, first]).file_backed_memory_mib == 1
    config = load_config([first, second])
    assert config.file_backed_memory_mib == 2
    assert [[place.path for place in places] for places in config.contradictions] == [
        [first, second]
    ]


def test_a_key_set_twice_in_one_file_counts_as_it_does_for_nova(nova: Path) -> None:
    config = load_config(
        [write(nova, "[libvirt]\nfile_backed_memory = 1\nfile_backed_memory = 2\n")]
    )
    assert config.file_backed_memory_mib == 2
    assert [place.line for place in config.contradictions[0]] == [2, 3]


def test_directories_come_after_files_sorted_by_name(tmp_path: Path) -> None:
    own = write(tmp_path / "ramshelf.conf", "[libvirt]\nfile_backed_memory = 1\n")
    second = write(tmp_path / "d" / "20.conf", "[libvirt]\nfile_backed_memory = 3\n")
    first = write(tmp_path / "d" / "10.conf", "[libvirt]\nfile_backed_memory = 2\n")
    write(tmp_path / "d" / "30.conf.bak", "[")
    write(tmp_path / "d" / ".hidden.conf", "[")
    config = load_config([own], [str(tmp_path / "d")])
    assert (config.files, config.file_backed_memory_mib) == ((own, first, second), 3)


def test_default_files_are_read_where_they_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "nova.conf.d" / "a.conf", "[libvirt]\nfile_backed_memory = 7\n")
    names = ("nova.conf", "nova.conf.d", "ramshelf.conf")
    monkeypatch.setattr(settings, "DEFAULT_FILES", tuple(str(tmp_path / name) for name in names))
    config = load_config()
    assert (config.file_backed_memory_mib, config.nova_files) == (7, config.files)


def test_without_any_file_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DEFAULT_FILES", ())
    assert load_config() == Config()


def test_the_shell_s_environment_does_not_count(
    nova: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_LIBVIRT__FILE_BACKED_MEMORY", "9")
    assert (
        load_config([write(nova, "[libvirt]\nfile_backed_memory = 1\n")]).file_backed_memory_mib
        == 1
    )


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("libvirt", "file_backed_memory", "-1", "should be greater than or equal to 0"),
        ("libvirt", "file_backed_memory", "64G", "a whole number without a unit is expected"),
        ("libvirt", "virt_type", "KVM", "valid values are [kvm, "),
        ("DEFAULT", "ram_allocation_ratio", "one", "a number is expected"),
        ("DEFAULT", "ram_allocation_ratio", "-1.0", "should be greater than or equal to 0"),
        ("DEFAULT", "reserved_host_memory_mb", "0.5", "a whole number without a unit is expected"),
        ("ramshelf", "strict", "maybe", "unexpected boolean value 'maybe'"),
        ("ramshelf", "host_reserved_memory_mb", "-1", "should be greater than or equal to 0"),
    ],
)
def test_a_wrong_value_names_file_section_and_key(
    nova: Path, section: str, key: str, value: str, reason: str
) -> None:
    error = refused(write(nova, f"[{section}]\n{key} = {value}\n"))
    assert error.code == "config.value"
    assert f"line 2: [{section}] {key} = {value} is not valid: {reason}" in error.sentence
    assert (error.facts["path"], error.facts["section"], error.facts["key"]) == (
        str(nova),
        section,
        key,
    )


def test_all_wrong_values_are_told_at_once(nova: Path) -> None:
    error = refused(
        write(nova, "[libvirt]\nfile_backed_memory = x\nvirt_type = y\n[ramshelf]\nz = 1\n")
    )
    assert [fact["key"] for fact in error.facts["errors"]] == [  # type: ignore[attr-defined]
        "z",
        "file_backed_memory",
        "virt_type",
    ]


def test_other_virt_types_of_nova_are_left_to_the_doctor(nova: Path) -> None:
    assert load_config([write(nova, "[libvirt]\nvirt_type = lxc\n")]).virt_type == "lxc"


def test_an_unknown_key_of_ours_is_refused_with_a_guess(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "ramshelf.conf", "[ramshelf]\nstrikt = yes\n"))
    assert (error.code, error.hint) == ("config.unknown-key", "Did you mean strict?")
    error = refused(write(tmp_path / "ramshelf.conf", "[ramshelf]\nzebra = yes\n"))
    assert error.hint.startswith("[ramshelf] has: strict, host_reserved_memory_mb, ")


def test_an_unknown_key_of_nova_s_is_none_of_our_business(nova: Path) -> None:
    load_config(
        [write(nova, "[libvirt]\nfile_backed_memori = 1\n[zebra]\nfile-system = 1\n_x = 1\n")]
    )


def test_a_reference_that_cannot_be_followed_is_named(nova: Path) -> None:
    error = refused(write(nova, "[libvirt]\nconnection_uri = qemu+tcp://$my_ip/system\n"))
    assert error.code == "config.reference"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "none.conf")).code == "config.missing"
    assert refused(str(tmp_path)).code == "config.unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert refused(str(tmp_path / "pipe")).code == "config.unreadable"
    (tmp_path / "latin1.conf").write_bytes(b"[libvirt]\n# Gr\xf6\xdfe\n")
    assert refused(str(tmp_path / "latin1.conf")).code == "config.malformed"
    (tmp_path / "binary.conf").write_bytes(b"[libvirt]\n#\0\n")
    assert refused(str(tmp_path / "binary.conf")).code == "config.malformed"
    with pytest.raises(ConfigError) as caught:
        load_config([], [str(tmp_path / "none")])
    assert caught.value.code == "config.missing"


def test_dev_null_is_an_empty_configuration() -> None:
    assert load_config(["/dev/null"]).off


def test_a_dangling_link_among_the_default_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nova.conf").symlink_to("nowhere")
    monkeypatch.setattr(settings, "DEFAULT_FILES", (str(tmp_path / "nova.conf"),))
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert caught.value.code == "config.missing"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["nova.conf", "nova-compute.conf", "ramshelf.conf"]),
            st.sampled_from(
                ["", "[libvirt]\nfile_backed_memory = 5\n", "[libvirt]\nfile_backed_memory = 0\n"]
            ),
        ),
        unique_by=lambda pair: pair[0],
    )
)
def test_the_hook_reads_the_same_size(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[str, str]]
) -> None:
    directory = tmp_path_factory.mktemp("conf")
    paths = [write(directory / name, text) for name, text in contents]
    files = existing_files(paths)
    whole = load_config(paths) if paths else Config()
    assert file_backed_memory_mib(files, read_settings(files)) == whole.file_backed_memory_mib


def test_what_the_hook_imports_is_standard_library_only() -> None:
    code = "import sys, ramshelf.system.configfiles; print('oslo_config' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
