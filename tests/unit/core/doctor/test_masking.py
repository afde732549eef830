"""What a support bundle shows of a file, and what it masks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramshelf.core.doctor.masking import (
    mask_daemon_log,
    mask_domain,
    mask_fstab,
    mask_mounts,
    mask_qemu_conf,
    mask_qemu_log,
    mask_settings,
    mask_unit,
    secrets_of_domain,
    secrets_of_settings,
    without,
)
from ramshelf.core.secrets import scrub

OWN = frozenset({"ramshelf.look_interval"})


def test_settings_keep_their_lines_and_only_known_values() -> None:
    text = (
        "# old: x\n[DEFAULT]\nhost = here\nnew_option: x\n  y\n\n[ramshelf]\nlook_interval = 5\n"
        "[placement]\nauth_url=http://a:b@h/\nusername = x\njunk\n"
    )
    assert mask_settings(text, OWN) == (
        "# ***\n[DEFAULT]\nhost = here\nnew_option = ***\n  ***\n\n[ramshelf]\nlook_interval = 5\n"
        "[placement]\nauth_url = http://***@h/\nusername = ***\n# ***\n"
    )


@given(st.text(alphabet="ab[]=: \t\n#", max_size=60))
def test_nothing_of_unknown_settings_is_shown(text: str) -> None:
    shown = mask_settings(f"[other]\nz = {text.replace(chr(10), '')}geheim\n{text}", OWN)
    assert "geheim" not in shown


def test_qemu_conf_shows_what_bears_on_memory() -> None:
    text = '# vnc_password = "x"\nvnc_password = "x"\nuser = "qemu"\n'
    assert mask_qemu_conf(text) == "vnc_password = ***\nuser = 'qemu'\n"
    assert "geheim" not in mask_qemu_conf('a = "geheim')


def test_options_of_network_file_systems_are_masked() -> None:
    fstab = "# x\n//h/s /a cifs password=x 0 0\nramshelf /b tmpfs size=1M 0 0\n"
    assert mask_fstab(fstab) == "# ***\n//h/s /a cifs *** 0 0\nramshelf /b tmpfs size=1M 0 0\n"
    mounts = "1 2 0:3 / /a rw - ceph m:/ rw,secret=x\n1 2 0:3 / /b rw - tmpfs t rw,size=1k\n"
    assert mask_mounts(mounts) == (
        "1 2 0:3 / /a rw - ceph m:/ ***\n1 2 0:3 / /b rw - tmpfs t rw,size=1k\n"
    )


DOMAIN = """\
<domain type='kvm' xmlns:q='urn:q'><name>web</name><title>geheim</title>
<metadata><z:undeclared>geheim</z:undeclared></metadata><!-- geheim -->
<memoryBacking><source type='file'/></memoryBacking>
<sysinfo type='smbios'><oemStrings><entry>id: geheim1</entry></oemStrings></sysinfo>
<devices><graphics type='vnc' passwd='geheim2' port='1'/><disk><source file='/geheim'/></disk>
</devices><q:commandline><q:arg value='-fw_cfg'/><q:arg value='name=opt/x,string=geheim3'/>
<q:arg value='-object'/><q:arg value='secret,id=a,data=geheim4'/><q:env name='A' value='geheim5'/>
</q:commandline></domain>"""


def test_domain_xml_shows_what_bears_on_memory() -> None:
    shown = mask_domain(DOMAIN)
    assert "geheim" not in shown
    assert "<name>web</name>" in shown
    assert '<source type="file"/>' in shown
    assert '<graphics type="vnc" passwd="***" port="***"/>' in shown


def test_secrets_of_domain_xml_are_known() -> None:
    found = secrets_of_domain(DOMAIN)
    assert {f"geheim{number}" for number in range(1, 6)} <= found
    assert not found & {"web", "file", "string", "secret"}
    assert secrets_of_domain("no XML") == frozenset()


def test_a_log_of_qemus_shows_options_that_bear_on_memory() -> None:
    log = (
        "2026-01-01 00:00:00.000+0000: starting up libvirt version: 9\nPATH=/geheim \\\n"
        "/usr/bin/qemu-system-x86_64 \\\n-m 64 \\\n"
        '-object \'{"qom-type":"memory-backend-file","id":"pc.ram"}\' \\\n'
        '-object \'{"qom-type":"secret","data":"geheim"}\' \\\n-fw_cfg string=geheim \\\n'
        "-append geheim\ngeheim on the console\n"
        "qemu-system-x86_64: -fw_cfg name=x,string=geheim: wrong\n"
        "2026-01-01 00:00:01.000+0000: shutting down, reason=destroyed\n"
    )
    shown = mask_qemu_log(log)
    assert "geheim" not in shown
    assert "-m 64\n" in shown
    assert "memory-backend-file" in shown
    assert "reason=destroyed" in shown
    assert "(1 other lines are left out)" in shown


def test_a_daemons_debug_messages_are_left_out() -> None:
    line = "2026-01-01 00:00:00.000+0000: 7: {} : f:1 : {}\n"
    log = line.format("debug", "geheim") + "<geheim/>\n" + line.format("error", "password=geheim")
    assert mask_daemon_log(log).splitlines() == [
        line.format("error", "password=***").rstrip(),
        "(2 other lines are left out)",
    ]


def test_commands_to_qemu_are_left_out_of_a_daemons_log() -> None:
    line = (
        "2026-01-01 00:00:00.000+0000: 7: info : qemuMonitorSend:9 : QEMU_MONITOR_SEND_MSG: mon=0x1"
        ' msg={"execute":"object-add","arguments":{"qom-type":"secret","data":"geheim"}}\n'
    )
    assert mask_daemon_log(line) == "(1 other lines are left out)\n"


def test_lines_as_long_as_a_log_take_no_time() -> None:
    """QEMU's user writes to the guest's log what it likes; pytest's timeout is there for this."""
    most = 256 << 10
    for text in ("a", "token", "qemu", "pass-", " "):
        long = text * (most // len(text))
        mask_qemu_log(f"qemu-x: {long}\n{long} x\n")
        scrub(f"{long}\n{long}=")
    without("://" + ":" * most, {"geheim"})


def test_a_units_environment_is_masked() -> None:
    assert mask_unit("[Service]\nEnvironment=A=x \\\n  B=geheim \\\n  C=y\nUser=a\n") == (
        "[Service]\nEnvironment=***\nUser=a\n"
    )
    assert mask_unit("[Service]\nEnvironment=A=x\nUser=a\n") == (
        "[Service]\nEnvironment=***\nUser=a\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "password=geheim",
        "OS_PASS=geheim; bypass_seconds=7",
        '{"admin_pass": "geheim", "user_token" : "ge\\"heim"}',
        "passwd='geheim' port='1'",
        "X-Auth-Token: geheim",
        "Authorization: Bearer geheim.x",
        "-----BEGIN PRIVATE KEY-----\ngeheim\n-----END PRIVATE KEY-----",
        "secret,id=a,password-secret=geheim",
        '{\\"password\\": \\"geheim\\"}',
        "http://u:geheim@h/",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "heim" not in scrub(text)
    assert "***" in scrub(text)


def test_what_is_no_secret_stays() -> None:
    text = '{"bypass_seconds": 7, "guest": "web", "key": "a"} https://h:80/x@y compass=n'
    assert scrub(text) == text


@given(st.text())
def test_any_text_can_be_scrubbed(text: str) -> None:
    assert isinstance(scrub(text, {"a"}), str)


def test_secrets_of_settings_are_known() -> None:
    text = (
        "[a]\n# old_password = geheim1\nauth_token: 'geheim2'\nurl = amqp://u:geheim3@h/\nx = y\n"
    )
    assert secrets_of_settings(text) == {"geheim1", "geheim2", "geheim3"}


def test_each_password_in_a_url_is_known() -> None:
    url = "transport_url = rabbit://a:geheim1@h1:5672,b:geheim2@h2:5672/vhost\n"
    assert {"geheim1", "geheim2"} <= secrets_of_settings(url)


def test_what_is_about_secrets_is_none() -> None:
    """Lines of the nova.conf that distributions have; "service" is a part of many names."""
    text = (
        "#service_token_roles = service\nservice_token_roles_required = sure\n"
        "send_service_user_token = True\n#password = <None>\n"
    )
    assert secrets_of_settings(text) == frozenset()


def test_what_nova_says_of_every_guest_is_no_secret() -> None:
    uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
    xml = f"""<domain><uuid>{uuid}</uuid><sysinfo type='smbios'><system>
    <entry name='manufacturer'>OpenStack Foundation</entry>
    <entry name='product'>OpenStack Nova</entry><entry name='version'>27.1.0</entry>
    <entry name='serial'>{uuid}</entry><entry name='uuid'>{uuid}</entry>
    <entry name='family'>Virtual Machine</entry></system><chassis>
    <entry name='serial'>ds=nocloud;geheim</entry></chassis></sysinfo></domain>"""
    assert secrets_of_domain(xml) == {"ds=nocloud;geheim"}


def test_a_known_secret_is_found_however_it_is_written() -> None:
    known = 'a"b<ümlaut>'
    text = f'n{known}n {json.dumps(known)} a"b&lt;ümlaut&gt; abc abcd'
    assert without(text, {known, "abc"}) == 'n***n "***" *** *** abcd'
