"""``ramshelf doctor --bundle`` on a real host: what it tells, and the secrets that it does not."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramshelf.core.hook.script import SCRIPT
from ramshelf.system.hooklog import LOG
from support.cli import RAMSHELF, ramshelf
from support.domains import domain_xml
from support.libvirtd import Libvirtd
from support.process import run
from support.stores import store

NAMES = (
    *("nova-placement", "nova-rabbit", "nova-database", "nova-shared", "nova-unknown"),
    *("nova-comment", "nova-continued", "nova-url", "ramshelf-application", "clouds-yaml"),
    *("qemu-vnc", "qemu-spice", "qemu-comment", "fstab-cifs", "fstab-comment", "fstab-url"),
    *("xml-vnc", "xml-sysinfo", "xml-fwcfg", "xml-object", "xml-env", "xml-metadata"),
    *("xml-description", "hook-log", "hook-token", "unit-environment", "daemon-debug"),
    *("daemon-error", "daemon-bearer", "qemu-message", "console-line"),
)
SECRETS = {name: f"s3cr{number:02}{name.replace('-', 'Q')}" for number, name in enumerate(NAMES)}
"""A secret for each place; no two have a part in common."""

NOVA = """\
# admin_password = {nova-comment}
[DEFAULT]
transport_url = rabbit://nova:{nova-rabbit}@controller:5672/
compute_driver = libvirt.LibvirtDriver
some_text = first
    {nova-continued}
[database]
connection = mysql+pymysql://nova:{nova-database}@controller/nova
[neutron]
metadata_proxy_shared_secret = {nova-shared}
[future]
opaque = {nova-unknown}
[libvirt]
file_backed_memory = 256
[placement]
auth_url = http://nova:{nova-url}@controller:5000/v3
password = {nova-placement}
"""
RAMSHELF_CONF = """\
[ramshelf]
look_interval = 7
placement = none
[placement]
application_credential_secret = {ramshelf-application}
"""
CLOUDS = "clouds:\n  here:\n    auth:\n      password: {clouds-yaml}\n"
FSTAB = """\
# old: password={fstab-comment}
//files/share /nowhere cifs noauto,username=u,password={fstab-cifs} 0 0
https://u:{fstab-url}@files/dav /nowhere2 davfs noauto 0 0
"""
UNIT = "[Service]\nEnvironment=OS_PASS={unit-environment}\n"
HOOK = '{{"event": "refused", "password": "{hook-log}", "said": "token={hook-token} is wrong"}}\n'
DAEMON = """\
2026-01-01 00:00:00.000+0000: 7: debug : virThing:1 : <graphics passwd='{daemon-debug}'/>
2026-01-01 00:00:00.000+0000: 7: error : virThing:2 : password='{daemon-error}' is wrong
2026-01-01 00:00:00.000+0000: 7: error : virThing:3 : Authorization: Bearer {daemon-bearer}
"""
QEMU = """\
qemu-system-x86_64: -fw_cfg name=opt/x,string={qemu-message}: it is wrong
login: {console-line}
"""
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
TOP = """\
<metadata><x:y xmlns:x='http://example.org/x'>{xml-metadata}</x:y></metadata>
<description>{xml-description}</description>
<sysinfo type='smbios'><oemStrings><entry>user-data: {xml-sysinfo}</entry></oemStrings></sysinfo>
"""
COMMANDLINE = """\
<qemu:commandline>
  <qemu:arg value='-fw_cfg'/><qemu:arg value='name=opt/org.example/x,string={xml-fwcfg}'/>
  <qemu:arg value='-object'/><qemu:arg value='secret,id=key0,data={xml-object}'/>
  <qemu:env name='SOME_TOKEN' value='{xml-env}'/>
</qemu:commandline>
</domain>"""


def planted(text: str) -> str:
    return text.format(**SECRETS)


def guest_with_secrets() -> str:
    xml = domain_xml(
        "web",
        64,
        top=planted(TOP),
        devices=f"<graphics type='vnc' passwd='{SECRETS['xml-vnc'][:8]}'/>",
    )
    xml = xml.replace(
        "<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' "
    )
    return xml.replace("</domain>", planted(COMMANDLINE)).replace(
        "</os>", "<smbios mode='sysinfo'/></os>"
    )


@pytest.fixture
def full_of_secrets(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """Yield a host with a secret in each place that is read, and in some that are not."""
    files = {
        "/etc/nova/nova.conf": NOVA,
        "/etc/ramshelf/ramshelf.conf": RAMSHELF_CONF,
        "/etc/openstack/clouds.yaml": CLOUDS,
        "/etc/systemd/system/ramshelf-agent.service.d/own.conf": UNIT,
    }
    with store("ext4", 512):
        ramshelf("hook", "install")
        libvirtd.set_qemu_conf(
            planted("\n# was {qemu-comment}\nspice_password = '{qemu-spice}'\n")
            + f"vnc_password = '{SECRETS['qemu-vnc'][:8]}'\n"
        )
        for path, text in files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(planted(text))
        libvirtd.create(guest_with_secrets())
        for path, text in {
            "/etc/fstab": FSTAB,
            LOG: HOOK,
            "/var/log/libvirt/libvirtd.log": DAEMON,
            "/var/log/libvirt/qemu/web.log": QEMU,
        }.items():
            with open(path, "a", encoding="utf-8") as file:
                file.write(planted(text))
        yield libvirtd
    Path("/var/log/libvirt/libvirtd.log").write_text("")
    for path in files:
        Path(path).unlink()


def unpacked(archive: Path, into: Path) -> Path:
    into.mkdir()
    run("tar", "--extract", "--file", str(archive), "--directory", str(into))
    (top,) = into.iterdir()
    return top


def test_it_tells_much_and_no_secret(full_of_secrets: Libvirtd, tmp_path: Path) -> None:
    assert len(set(SECRETS.values())) == len(NAMES) > 20
    log = Path("/var/log/libvirt/qemu/web.log").read_text()
    xml = full_of_secrets.virsh("dumpxml", "--security-info", "web").stdout
    assert all(SECRETS[name][:8] in xml for name in NAMES if name.startswith("xml-"))
    assert all(SECRETS[name] in log for name in ("xml-fwcfg", "xml-object", "xml-env"))
    archive = tmp_path / "here.tar.gz"
    ended = ramshelf("doctor", "--bundle", str(archive), "--verbose")
    steps = [line for line in ended.stderr.splitlines() if line.startswith("+ ")]
    assert any(step.startswith(f"+ {SCRIPT} ") for step in steps)
    assert steps[-1].startswith("+ mv ")
    assert steps[-1].endswith(f" {archive}")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [archive]
    top = unpacked(archive, tmp_path / "out")
    texts = {
        str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()
    }
    said = [ended.stdout, ended.stderr, *texts.values(), *texts]
    for name, secret in SECRETS.items():
        for text in said:
            assert secret[:8] not in text, f"{name} in {text}"

    assert "versions.ok" in {each["code"] for each in json.loads(texts["doctor.json"])["findings"]}
    assert json.loads(texts["status.json"])["guests"]["running"] == 1
    assert json.loads(texts["capacity.json"])["guests"][0]["name"] == "web"
    assert json.loads(texts["facts.json"])["guests"][0]["guest"]["name"] == "web"
    assert json.loads(texts["versions.json"])["ramshelf"]
    conf = texts["config/etc/nova/nova.conf"].splitlines()
    assert conf[12:14] == ["[libvirt]", "file_backed_memory = 256"]
    assert len(conf) == len(NOVA.splitlines())  # what names a line is right here, too
    assert "look_interval = 7\n" in texts["config/etc/ramshelf/ramshelf.conf"]
    (guest,) = (text for name, text in texts.items() if name.startswith("guests/"))
    assert "<name>web</name>" in guest
    assert '<source type="file"/>' in guest
    assert "<capabilities>" in texts["capabilities.xml"]
    assert "x-ramshelf.kind=disk" in texts["fstab"]
    assert '"guest": "web"' in texts["logs/hook.log"]
    assert "memory-backend-file" in texts["logs/qemu/web.log"]
    assert "it is wrong" not in texts["logs/qemu/web.log"]
    assert "is wrong" in texts["logs/libvirt/libvirtd.log"]
    for name in texts:
        assert name == "INDEX" or name.partition("/")[0] in texts["INDEX"]


def test_what_does_not_answer_is_named(full_of_secrets: Libvirtd, tmp_path: Path) -> None:
    os.kill(full_of_secrets.pid, signal.SIGSTOP)
    try:
        ended = ramshelf("--json", "doctor", "--bundle", str(tmp_path / "a.tar.gz"))
    finally:
        os.kill(full_of_secrets.pid, signal.SIGCONT)
    document = json.loads(ended.stdout)
    assert {"capabilities.xml", "guests/", "capacity.json"} <= document["missing"].keys()
    assert {"doctor.json", "qemu.conf", "INDEX", "facts.json"} <= set(document["files"])
    index = (unpacked(tmp_path / "a.tar.gz", tmp_path / "out") / "INDEX").read_text()
    assert "no answer" in index


def test_a_name_is_made_and_nothing_else_is_left(libvirtd: Libvirtd, tmp_path: Path) -> None:
    del libvirtd
    shell = 'cd "$1" && exec "$2" --quiet doctor --bundle'
    ended = run("sh", "-c", shell, "sh", str(tmp_path), RAMSHELF)
    assert (ended.stdout, ended.stderr) == ("", "")
    (archive,) = tmp_path.iterdir()
    assert archive.name.startswith(f"ramshelf-{os.uname().nodename}-")
    assert archive.name.endswith(".tar.gz")
    taken = ramshelf("doctor", "--bundle", str(tmp_path), ok=(255,))
    assert "[cli.usage]" in taken.stderr
