"""A conservative look at the text of a guest's XML."""

import pytest

from ramshelf.core.hook.call import MARKS, concerned, probe_xml

PLAIN = """<domain type='kvm' id='1'>
  <memory unit='KiB'>262144</memory>
  <currentMemory unit='KiB'>262144</currentMemory>
  <devices>
    <disk type='file' device='disk'><address type='pci' domain='0x0000'/></disk>
    <interface type='network'/><memballoon model='virtio'/>{}
  </devices>{}
</domain>"""


def test_most_guests_are_of_no_concern() -> None:
    assert not concerned(PLAIN.format("", "").encode())
    assert not concerned(probe_xml("ramshelf-probe-1").encode())


@pytest.mark.parametrize(
    ("device", "top"),
    [
        ("", "<memoryBacking><locked/></memoryBacking>"),
        ("", "<cpu><numa><cell id='0' memory='1' unit='KiB' memAccess='shared'/></numa></cpu>"),
        ("<memory model='dimm' access='shared'><target/></memory>", ""),
        ("<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>", ""),
        ("<interface type='hostdev' managed='yes'/>", ""),
        ("<interface type='network'><actual type='hostdev'/></interface>", ""),
        ("<interface type='vdpa'/>", ""),
        ("<disk type='vhostvdpa' device='disk'/>", ""),
        ("<disk type='file'><backingStore type='nvme' index='1'/></disk>", ""),
        ("", "<launchSecurity type='sev'/>"),
        ("", "<qemu:commandline><qemu:arg value='-readconfig'/></qemu:commandline>"),
    ],
)
def test_one_whose_memory_may_be_in_files_or_pinned_is(device: str, top: str) -> None:
    xml = PLAIN.format(device, top)
    assert concerned(xml.encode())
    assert sum(mark in xml for mark in MARKS) == 1  # each case has its mark


def test_a_shell_can_look_for_the_marks() -> None:
    """The script of the hook has them in double quotes."""
    assert not set("".join(MARKS)) & set('"$`\\\n')
