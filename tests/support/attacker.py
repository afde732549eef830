"""What a process with nothing but QEMU's uid can do on the store, over and over, at random.

``python attacker.py STORE FOREIGN GAME SEED`` runs as that user until it is killed, and prints a
line for each kind of attack once it has succeeded. It spares what would harm that user's own guests
alone, which no host can prevent where guests share a uid: it kills none of their processes, does
not write into their memory, and takes from no guest the file that its QEMU is about to open. So
GAME is a file with the names of the guests' directories that it may attack, and it locks that while
it does.
"""

import contextlib
import fcntl
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

SPACE = 2 << 20
"""Bytes that it takes of the store, at most, beyond what guests are promised."""


class Attacker:
    """``store`` is the memory backing directory, ``foreign`` a directory outside, which links lead to."""

    def __init__(self, store: Path, foreign: Path, game: Path, seed: int) -> None:
        self._store = store
        self._foreign = foreign
        self._game = game
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._number = 0
        self._told: set[str] = set()
        self._fair: list[str] = []

    def run(self) -> None:
        """One attack after the other."""
        attacks: tuple[Callable[[], None], ...] = (
            self.plant_directory,
            self.plant_huge_file,
            self.plant_layout,
            self.plant_link,
            self.nest_deep,
            self.plant_many,
            self.add_file,
            self.swap_file,
            self.swap_directory,
            self.link_file,
            self.unlink_file,
            self.grow,
            self.clear,
        )
        while True:
            attack = self._random.choice(attacks)
            with contextlib.suppress(OSError), self._game.open() as game:
                fcntl.flock(game, fcntl.LOCK_SH)
                self._fair = game.read().split()
                attack()
                if attack.__name__ not in self._told:
                    self._told.add(attack.__name__)
                    print(attack.__name__, flush=True)  # noqa: T201 - what it is asked for
            time.sleep(self._random.random() / 100)

    def plant_directory(self) -> None:
        """A directory as of a guest, with a memory file of nobody's."""
        directory = self._fresh()
        directory.mkdir()
        (directory / "pc.ram").write_bytes(b"of nobody")

    def plant_huge_file(self) -> None:
        """A file that claims to be larger than every store."""
        directory = self._fresh()
        directory.mkdir()
        with (directory / "pc.ram").open("wb") as file:
            file.truncate(1 << 40)

    def plant_layout(self) -> None:
        """The other layout, which leads out of the store (CASES T1)."""
        above = self._store / "libvirt"
        with contextlib.suppress(FileExistsError):
            above.mkdir()
        (above / "qemu").symlink_to(self._foreign)

    def plant_link(self) -> None:
        """A guest's directory that leads out of the store."""
        self._fresh().symlink_to(self._foreign)

    def nest_deep(self) -> None:
        """Directories in a guest's directory whose path is longer than any that can be named."""
        directory = self._victim()
        here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(30):
            name = "n" * 200
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)

    def plant_many(self) -> None:
        """Many entries."""
        directory = self._fresh()
        directory.mkdir()
        for number in range(1500):
            (directory / str(number)).touch()

    def add_file(self) -> None:
        """A file more in a guest's directory."""
        (self._victim() / f"more{self._random.randrange(5)}").write_bytes(b"x" * 4096)

    def swap_file(self) -> None:
        """A FIFO, a link, a directory in the place of a memory file, for a moment."""
        victim = self._victim() / "pc.ram"
        aside = victim.with_name("aside")
        victim.rename(aside)
        kind = self._random.randrange(3)
        if kind == 0:
            os.mkfifo(victim)
        elif kind == 1:
            victim.symlink_to(self._foreign / "precious")
        else:
            victim.mkdir()
        time.sleep(0.02)
        victim.rmdir() if kind == 2 else victim.unlink()
        aside.rename(victim)

    def swap_directory(self) -> None:
        """A link out of the store in the place of a guest's directory, for a moment."""
        victim = self._victim()
        aside = self._fresh()
        victim.rename(aside)
        victim.symlink_to(self._foreign)
        time.sleep(0.02)
        victim.unlink()
        aside.rename(victim)

    def link_file(self) -> None:
        """A second name for a memory file, elsewhere."""
        (self._fresh()).mkdir()
        directory = self._store / f"9{self._number}-planted"
        os.link(self._victim() / "pc.ram", directory / "pc.ram")

    def unlink_file(self) -> None:
        """The memory file of a running guest, which runs on."""
        (self._victim() / "pc.ram").unlink()

    def grow(self) -> None:
        """A guest's directory beyond what the guest is promised, by blocks that are really there."""
        (self._victim() / "grown").write_bytes(b"x" * (SPACE // 4))

    def clear(self) -> None:
        """What it planted, now and then."""
        for entry in os.scandir(self._store):
            if entry.name.endswith("-planted") and self._random.random() < 0.5:
                path = Path(entry.path)
                if path.is_symlink():
                    path.unlink()
                else:
                    for file in path.iterdir():
                        file.unlink()
                    path.rmdir()

    def _fresh(self) -> Path:
        self._number += 1
        return self._store / f"9{self._number}-planted"

    def _victim(self) -> Path:
        """The directory of a guest that runs."""
        if not self._fair:
            raise FileNotFoundError
        return self._store / self._random.choice(self._fair)


if __name__ == "__main__":
    store, foreign, game = map(Path, sys.argv[1:4])
    Attacker(store, foreign, game, int(sys.argv[4])).run()
