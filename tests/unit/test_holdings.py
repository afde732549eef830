"""core/holdings: who holds what on the store."""

from ramshelf.core.capacity import PROMISE_FILE, FileUsage
from ramshelf.core.holdings import Holding, holdings, who_holds
from ramshelf.core.units import MIB


def usage(path: str, apparent_mib: int, allocated_mib: int = 0) -> FileUsage:
    return FileUsage(path=path, apparent=apparent_mib * MIB, allocated=allocated_mib * MIB)


def test_files_are_held_by_the_guest_of_their_directory() -> None:
    files = (
        usage("/m/1-web/ram-node0", 64, 10),
        usage("/m/1-web/ram-node1", 64, 5),
        usage("/m/2-db/pc.ram", 256, 256),
        usage(f"/m/2-db/{PROMISE_FILE}", 512),
        usage("/m/7-old/pc.ram", 32),
    )
    db, web, old = holdings(files, {"1-web": "web", "2-db": "db"})
    assert (db.guest, db.promised, db.size, db.allocated) == ("db", 512 * MIB, 256 * MIB, 256 * MIB)
    assert [file.path for file in db.files] == ["/m/2-db/pc.ram"]
    assert (web.guest, web.promised, web.allocated) == ("web", 128 * MIB, 15 * MIB)
    assert (old.guest, old.directory) == (None, "/m/7-old")


def test_the_largest_holders_are_named() -> None:
    found = [
        Holding(directory=f"/m/{number}-g", guest=f"g{number}", files=(), promised=number * MIB)
        for number in (3, 2, 1, 0)
    ]
    assert who_holds(found, most=2) == "Held by g3 3 MiB, g2 2 MiB and 1 more."
    assert who_holds(found[:1]) == "Held by g3 3 MiB."
    assert who_holds([]) == ""
