"""Many hosts: the Ansible role puts ramshelf on two, disturbs no guest, and takes it off again."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.process import run
from support.real_host import CHECKOUT, MEMORY, PATIENCE, Boot, RealHost, guest_xml
from support.typed import Page

pytestmark = pytest.mark.soak

STORES = {
    "host1": {"kind": "disk", "fs": "xfs", "device": "/dev/vdb", "size": "2G"},
    "host2": {"kind": "swap", "device": "/dev/vdb", "size": "2G"},
}
PORT = {"ramshelf": {"metrics_port": 10178}}
RELOAD = "Reload the agent"
SSH = "-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"


@dataclass(frozen=True)
class Played:
    """What a playbook has said: its output, and the tasks that changed something, by host."""

    said: str
    changed: dict[str, list[str]]


class Controller:
    """This machine, from which the example playbook is run with an inventory of two hosts."""

    def __init__(self, directory: Path, hosts: dict[str, RealHost]) -> None:
        wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
        subprocess.run(wheel, cwd=CHECKOUT, check=True, capture_output=True)
        common = {
            "ansible_host": "127.0.0.1",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": SSH,
            "ramshelf_packages": [str(next(directory.glob("*.whl")))],
            "ramshelf_nova_service": "",  # there is none that could be restarted
        }
        each = {
            name: {
                "ansible_port": host.port,
                "ansible_ssh_private_key_file": str(host.key),
                "ramshelf_store": STORES[name],
            }
            for name, host in hosts.items()
        }
        inventory = directory / "inventory.json"
        inventory.write_text(json.dumps({"kvm_hosts": {"vars": common, "hosts": each}}))
        environment = {
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_TIMEOUT": "60",
            "ANSIBLE_HOME": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        self._command = (
            *("env", *(f"{name}={value}" for name, value in environment.items())),
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory", str(inventory), str(CHECKOUT / "deploy/ansible/site.yml")),
        )

    def play(self, *options: str, ok: int = 0, **variables: object) -> Played:
        """Run the playbook with more options and variables, and return what it says."""
        more = ("--extra-vars", json.dumps(variables))
        ended = run(*self._command, *options, *more, ok=(ok,), timeout=6 * PATIENCE)
        return _played(ended.stdout)


def _played(said: str) -> Played:
    task, changed = "", no_change()
    for line in said.splitlines():
        if named := re.match(r"(?:TASK|RUNNING HANDLER) \[ramshelf : (.*)\]", line):
            task = named[1]
        done = re.match(r"changed: \[(\w+)", line)
        if done and task not in changed[done[1]]:
            changed[done[1]].append(task)
    for name, count in re.findall(r"^(\w+) +: ok=\d+ +changed=(\d+) ", said, re.MULTILINE):
        assert len(changed[name]) == int(count), said
    return Played(said=said, changed=changed)


def no_change() -> dict[str, list[str]]:
    return {name: [] for name in STORES}


@pytest.fixture(scope="module")
def hosts(boot: Boot) -> Iterator[dict[str, RealHost]]:
    """Two with a network and no ramshelf; the first may move guests to the second."""
    with (
        boot("host1", "--memory", "3072", "--peer", "host2") as first,
        boot("host2", "--memory", "3072", "--peer", "host1") as second,
    ):
        for host in (first, second):
            host.run("rm -rf /opt/ramshelf /usr/local/bin/ramshelf")
        first.run("mkdir -p -m 700 /root/.ssh")
        first.put(second.key, "/root/.ssh")
        first.run("mv /root/.ssh/key /root/.ssh/id_ed25519")
        first.run("ssh-keyscan host2 >>/root/.ssh/known_hosts")
        yield dict(zip(STORES, (first, second), strict=True))


@pytest.fixture(scope="module")
def before(hosts: dict[str, RealHost]) -> dict[str, str]:
    """What there is on each host before the first run."""
    return {name: everything(host) for name, host in hosts.items()}


@pytest.fixture(scope="module")
def controller(
    tmp_path_factory: pytest.TempPathFactory, hosts: dict[str, RealHost], before: dict[str, str]
) -> Controller:
    """The machine with Ansible, whose hosts were looked at before."""
    assert before.keys() == hosts.keys()
    return Controller(tmp_path_factory.mktemp("ansible"), hosts)


def everything(host: RealHost) -> str:
    """What a run might change: files with mode and content, mounts, swap, signatures, units."""
    # libvirt itself writes about guests in the first two.
    others = "/etc/apparmor.d/libvirt /etc/libvirt/qemu /opt/tests"
    pruned = " -o ".join(f"-path {path}" for path in others.split())
    return host.said(
        f"find /etc /opt /usr/local /var/lib/ramshelf -xdev \\( {pruned} \\) -prune -o ! -type d "
        "-printf '%p %m %l\\n' -type f -exec sha256sum {} + 2>/dev/null | sort; "
        f"findmnt --noheadings --output FSTYPE,OPTIONS {MEMORY}; "
        "cut -f1 /proc/swaps; wipefs --noheadings /dev/vdb; "
        "systemctl list-unit-files --no-legend 'ramshelf*'",
        ok=(0, 1),
    )


def pid(host: RealHost, guest: str) -> str:
    return host.said(f"cat /run/libvirt/qemu/{guest}.pid")


def test_a_check_changes_nothing_and_says_what_the_first_run_does(
    controller: Controller, hosts: dict[str, RealHost], before: dict[str, str]
) -> None:
    checked = controller.play("--check", "--diff")
    assert {name: everything(host) for name, host in hosts.items()} == before
    for name, store in STORES.items():
        assert {"Make the store", "Install the hook"} <= set(checked.changed[name])
        assert f"ramshelf store create --kind {store['kind']}" in checked.said

    first = controller.play()
    assert first.changed == checked.changed
    for name, host in hosts.items():
        assert host.json("store", "show")["kind"] == STORES[name]["kind"]
        assert not [each for each in host.findings().values() if each["severity"] == "failure"]
        host.wait("curl --silent http://127.0.0.1:10177/metrics | grep _build_info", "metrics")


def test_a_second_run_changes_nothing_and_disturbs_no_guest(
    controller: Controller, hosts: dict[str, RealHost]
) -> None:
    host = hosts["host1"]
    host.define(guest_xml("web1", dirty_mib=32))
    host.run("virsh --quiet start web1")
    host.wait_console("web1", "DIRTIED")
    guest, agent = pid(host, "web1"), host.said("cat /run/ramshelf/agent.lock")
    was = {name: everything(each) for name, each in hosts.items()}
    assert controller.play().changed == no_change()
    assert {name: everything(each) for name, each in hosts.items()} == was
    assert pid(host, "web1") == guest
    assert host.said("cat /run/ramshelf/agent.lock") == agent


def test_another_port_changes_that_alone(
    controller: Controller, hosts: dict[str, RealHost]
) -> None:
    host = hosts["host1"]
    guest = pid(host, "web1")
    only = ("--limit", "host1")
    checked = controller.play("--check", "--diff", *only, ramshelf_conf=PORT)
    assert "+metrics_port = 10178" in checked.said
    assert checked.changed["host1"] == ["Write ramshelf.conf", RELOAD]
    assert host.holds("curl --silent http://127.0.0.1:10177/metrics | grep _build_info")
    assert controller.play(*only, ramshelf_conf=PORT).changed == checked.changed
    host.wait("curl --silent http://127.0.0.1:10178/metrics | grep _build_info", "the other port")
    assert controller.play("--check", *only, ramshelf_conf=PORT).changed == no_change()
    assert pid(host, "web1") == guest
    assert host.holds("virsh domstate web1 | grep -q running")


def test_nova_compute_is_told_what_the_store_holds(
    controller: Controller, hosts: dict[str, RealHost]
) -> None:
    host = hosts["host1"]
    held = host.json("capacity")["capacity_mib"]

    def play() -> dict[str, list[str]]:
        told = controller.play("--limit", "host1", ramshelf_conf=PORT, ramshelf_nova_memory="store")
        return told.changed

    assert play()["host1"] == ["Write what nova-compute is to read", RELOAD]
    said = host.said("cat /etc/nova/nova.conf.d/ramshelf.conf")
    assert f"\nfile_backed_memory = {held}" in said
    assert play() == no_change()


def test_a_host_with_guests_keeps_all_it_has_until_it_is_drained(
    controller: Controller, hosts: dict[str, RealHost]
) -> None:
    first, second = hosts.values()
    was = everything(first)
    played = controller.play("--limit", "host1", ok=2, ramshelf_state="absent")
    assert played.changed == no_change()
    assert "store.guests-running" in played.said
    assert everything(first) == was

    with Page(first, "how-to/drain-a-host.md") as page:
        page.skip("openstack", "openstack", "openstack")
        assert "web1 to host2, live: possible" in page.type("for guest").stdout
        page.type("for guest")
        assert second.holds("virsh domstate web1 | grep -q running")
        first.define(guest_xml("web2"))
        page.type("for guest")
        assert second.holds("virsh dominfo web2")
        assert page.type("virsh list --all").stdout.split()[:3] == ["Id", "Name", "State"]
        assert first.said("virsh list --all --name") == ""
        page.type("ramshelf capacity")
        assert first.json("capacity")["promised_mib"] == 0


def test_what_is_taken_off_leaves_nothing(
    controller: Controller, hosts: dict[str, RealHost], before: dict[str, str]
) -> None:
    hosts["host2"].remove_guests()
    checked = controller.play("--check", "--diff", ramshelf_state="absent")
    assert "Take away agent, hook and store" in checked.changed["host2"]
    assert hosts["host2"].holds(f"findmnt {MEMORY} && systemctl is-active ramshelf-agent")
    assert controller.play(ramshelf_state="absent").changed == checked.changed
    found = "find /etc /opt /usr/local /var/lib /run -xdev -name '*ramshelf*'"
    for name, host in hosts.items():
        assert host.said(found) == ""
        assert everything(host) == before[name]
    assert controller.play(ramshelf_state="absent").changed == no_change()
