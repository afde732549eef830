"""A libvirtd of one's own, inside ``scripts/isolated``."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ramshelf.system.run import Completed
from support.process import HANG, run, wait_until

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
_QEMU_CONF = Path("/etc/libvirt/qemu.conf")
_LIBVIRTD_CONF = Path("/etc/libvirt/libvirtd.conf")
_MEMORY = Path("/var/lib/libvirt/qemu/ram")
_LOG = Path("/var/log/libvirt/libvirtd.log")


class Libvirtd:
    """The monolithic libvirtd if there is one, else virtqemud.

    QEMU runs as the distribution's user. ``options`` are options of the daemon.
    """

    uri = "qemu:///system"

    def __init__(self, *options: str) -> None:
        self._options = options
        self._program = "libvirtd" if shutil.which("libvirtd") else "virtqemud"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._virtlogd: subprocess.Popen[bytes] | None = None
        self._qemu_conf = _QEMU_CONF.read_text() if _QEMU_CONF.exists() else ""

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._daemon is not None, "libvirtd was not started"
        return self._daemon.pid

    @property
    def running(self) -> bool:
        """Whether the daemon's process lives."""
        return self._daemon is not None and self._daemon.poll() is None

    def start(self) -> None:
        """Start the daemon (and virtlogd), and wait until it answers.

        The first time it probes QEMU, which takes seconds.
        """
        if self._virtlogd is None or self._virtlogd.poll() is not None:
            self._virtlogd = _spawn("virtlogd")
            wait_until(Path("/run/libvirt/virtlogd-sock").exists, "virtlogd listens")
        if self.running:
            return
        daemon = self._daemon = _spawn(self._program, *self._options)
        wait_until(lambda: daemon.poll() is not None or self._answers(), "libvirtd answers")
        assert self.running, f"{self._program} ended with {daemon.returncode}:\n{_LOG.read_text()}"

    def stop(self) -> None:
        """Stop the daemon with SIGTERM; guests run on."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """Stop it and virtlogd, for good."""
        self.stop()
        if self._virtlogd is not None:
            self._virtlogd.terminate()
            self._virtlogd.wait(timeout=HANG)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL; guests run on."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start it: qemu.conf is read again, running guests are found again."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Send SIGHUP, so that the daemon looks for hooks again."""
        os.kill(self.pid, signal.SIGHUP)
        time.sleep(0.2)  # libvirtd reloads in a thread and does not tell when it has.
        wait_until(self._answers, "libvirtd answers after SIGHUP")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Make it accept anybody over TCP, too."""
        options, before = self._options, _LIBVIRTD_CONF.read_text()
        _LIBVIRTD_CONF.write_text(f'{before}\nlisten_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\n')
        self._options = (*options, "--listen")
        self.restart()
        try:
            yield
        finally:
            self._options = options
            _LIBVIRTD_CONF.write_text(before)
            self.restart()

    @contextlib.contextmanager
    def seeing(self, command: str) -> Iterator[None]:
        """Run it in a mount namespace of its own in which a shell's ``command`` has been run."""
        place = Path(shutil.which(self._program) or "")
        with tempfile.TemporaryDirectory() as directory:
            real, wrapper = Path(directory) / self._program, Path(directory) / "wrapper"
            shutil.copy2(place, real)
            inner = shlex.quote(f'{command} && exec {real} "$@"')
            wrapper.write_text(f'#!/bin/sh\nexec unshare --mount sh -c {inner} sh "$@"\n')
            wrapper.chmod(0o755)
            self.stop()
            run("mount", "--bind", str(wrapper), str(place))
            try:
                self.start()
                yield
            finally:
                self.stop()
                run("umount", str(place))
                self.start()

    def virsh(
        self, *args: str, ok: Sequence[int] = (0,), stdin: str | None = None, timeout: float = HANG
    ) -> Completed:
        """Run ``virsh ARGS`` on it; an exit status that is not in ``ok`` fails the test."""
        return run("virsh", "--connect", self.uri, *args, ok=ok, stdin=stdin, timeout=timeout)

    def create(self, xml: str, ok: Sequence[int] = (0,)) -> Completed:
        """Start a transient guest of this XML."""
        return self.virsh("create", "/dev/stdin", stdin=xml, ok=ok)

    def define(self, xml: str) -> Completed:
        """Define a persistent guest of this XML."""
        return self.virsh("define", "/dev/stdin", stdin=xml)

    def set_qemu_conf(self, extra_text: str) -> None:
        """Set qemu.conf to what it was at first plus this text, and restart."""
        _QEMU_CONF.write_text(self._qemu_conf + extra_text)
        self.restart()

    def reset(self) -> None:
        """Make it what it was at first: running, with no guest, no hook, the first qemu.conf."""
        self.start()
        for name in filter(None, self.virsh("list", "--name").stdout.split("\n")):
            self.virsh("destroy", name, ok=(0, 1))
        for name in filter(None, self.virsh("list", "--all", "--name").stdout.split("\n")):
            self.virsh(
                "undefine", name, "--managed-save", "--nvram", "--snapshots-metadata", ok=(0, 1)
            )
        if hooks := list(Path("/etc/libvirt/hooks").iterdir()):
            for path in hooks:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.reload()
        if not _MEMORY.is_dir():
            # This makes the directory, for QEMU's user to enter; starting a guest does not.
            self.restart()
        for path in _MEMORY.iterdir():
            shutil.rmtree(path)
        if _QEMU_CONF.exists() and _QEMU_CONF.read_text() != self._qemu_conf:
            self.set_qemu_conf("")

    def _answers(self) -> bool:
        return run("virsh", "--connect", self.uri, "version", ok=(0, 1)).status == 0

    def _end(self, number: signal.Signals) -> None:
        if self._daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                self._daemon.send_signal(number)
            self._daemon.wait(timeout=HANG)  # libvirtd gives its workers 30 s and then exits.
            self._daemon = None


def _spawn(*argv: str) -> subprocess.Popen[bytes]:
    with _LOG.open("ab") as log:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_ENVIRONMENT
        )
