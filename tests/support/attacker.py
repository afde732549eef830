"""What a process with nothing but QEMU's uid can do on the store, over and over, at random.

``python attacker.py STORE FOREIGN GAME SEED`` runs as that user until it is killed, and prints a
line for each kind of attack once it has succeeded. It spares what would harm only that user's own
guests, which no host can prevent where guests share a uid: it kills none of their processes, does
not write into their memory, and takes from no guest the file that its QEMU is about to open. For
this GAME is a file with the names of the guests' directories that it may attack; it locks that file
during each attack.
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
"""The most bytes of the store that it takes beyond what guests are promised."""


class Attacker:
    """Attacks on ``store``, the memory backing directory.

    ``foreign`` is a directory outside, to which links lead.
    """

    def __init__(self, store: Path, foreign: Path, game: Path, seed: int) -> None:
        self._store = store
        self._foreign = foreign
        self._game = game
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._number = 0
        self._told: set[str] = set()
        self._fair: list[str] = []

    def run(self) -> None:
        """Carry out one attack after the other."""
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
                    print(attack.__name__, flush=True)  # noqa: T201 - this is its output
            time.sleep(self._random.random() / 100)

    def plant_directory(self) -> None:
        """Plant a directory like a guest's, with a memory file that belongs to nobody."""
        directory = self._fresh()
        directory.mkdir()
        (directory / "pc.ram").write_bytes(b"of nobody")

    def plant_huge_file(self) -> None:
        """Plant a file that claims to be larger than every store."""
        directory = self._fresh()
        directory.mkdir()
        with (directory / "pc.ram").open("wb") as file:
            file.truncate(1 << 40)

    def plant_layout(self) -> None:
        """Plant the other layout of directories, which leads out of the store (CASES T1)."""
        above = self._store / "libvirt"
        with contextlib.suppress(FileExistsError):
            above.mkdir()
        (above / "qemu").symlink_to(self._foreign)

    def plant_link(self) -> None:
        """Plant a link that looks like a guest's directory and leads out of the store."""
        self._fresh().symlink_to(self._foreign)

    def nest_deep(self) -> None:
        """Nest directories in a guest's directory, their path longer than any that can be named."""
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
        """Plant a directory with 1500 entries."""
        directory = self._fresh()
        directory.mkdir()
        for number in range(1500):
            (directory / str(number)).touch()

    def add_file(self) -> None:
        """Add a file to a guest's directory."""
        (self._victim() / f"more{self._random.randrange(5)}").write_bytes(b"x" * 4096)

    def swap_file(self) -> None:
        """Put a FIFO, a link or a directory in the place of a memory file for a moment."""
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
        """Put a link out of the store in the place of a guest's directory for a moment."""
        victim = self._victim()
        aside = self._fresh()
        victim.rename(aside)
        victim.symlink_to(self._foreign)
        time.sleep(0.02)
        victim.unlink()
        aside.rename(victim)

    def link_file(self) -> None:
        """Give a memory file a second name, elsewhere."""
        (self._fresh()).mkdir()
        directory = self._store / f"9{self._number}-planted"
        os.link(self._victim() / "pc.ram", directory / "pc.ram")

    def unlink_file(self) -> None:
        """Unlink the memory file of a running guest, which runs on."""
        (self._victim() / "pc.ram").unlink()

    def grow(self) -> None:
        """Grow a guest's directory beyond what the guest is promised, by allocated blocks."""
        (self._victim() / "grown").write_bytes(b"x" * (SPACE // 4))

    def clear(self) -> None:
        """Remove some of what it planted."""
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
        """Return the directory of a running guest; raise FileNotFoundError if there is none."""
        if not self._fair:
            raise FileNotFoundError
        return self._store / self._random.choice(self._fair)


if __name__ == "__main__":
    store, foreign, game = map(Path, sys.argv[1:4])
    Attacker(store, foreign, game, int(sys.argv[4])).run()
