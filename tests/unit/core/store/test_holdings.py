"""core/store/holdings: who holds what on the store."""

from ramshelf.core.store.capacity import StoreUsage
from ramshelf.core.store.directory import FileUsage, GuestDirectory
from ramshelf.core.store.holdings import Holding, holdings, who_holds
from ramshelf.core.store.kind import Kind
from ramshelf.core.store.ledger import Note
from ramshelf.core.units import MIB


def directory(name: str, *allocated_mib: int) -> GuestDirectory:
    files = tuple(
        FileUsage(
            path=f"/m/{name}/ram-node{node}", apparent=64 * MIB, allocated=mib * MIB, inode=node
        )
        for node, mib in enumerate(allocated_mib)
    )
    return GuestDirectory(path=f"/m/{name}", device=(0, 1), uid=1, gid=1, files=files)


def note(number: int, name: str, promised_mib: int) -> Note:
    directory = f"/m/{number}-{name}"
    return Note(
        name=name, uuid="", domain_id=number, directory=directory, promised=promised_mib * MIB
    )


def test_guests_hold_what_they_are_promised_and_nobody_holds_nothing() -> None:
    usage = StoreUsage(
        kind=Kind.RAM,
        size=0,
        used=0,
        swap=0,
        beyond_swap=False,
        notes=(note(1, "web", 128), note(2, "db", 512), note(3, "starting", 32)),
        directories=(directory("1-web", 10, 5), directory("7-old", 32)),
    )
    db, web, starting, old = holdings(usage, {"1-web": "web", "2-db": "db"})
    assert (db.guest, db.promised, db.files) == ("db", 512 * MIB, ())
    assert (web.guest, web.promised, web.size, web.allocated) == (
        "web",
        128 * MIB,
        128 * MIB,
        15 * MIB,
    )
    assert (starting.guest, starting.promised) == (None, 32 * MIB)
    assert (old.guest, old.directory, old.promised, old.allocated) == (
        None,
        "/m/7-old",
        0,
        32 * MIB,
    )


def test_the_largest_holders_are_named() -> None:
    found = [
        Holding(directory=f"/m/{number}-g", guest=f"g{number}", files=(), promised=number * MIB)
        for number in (3, 2, 1, 0)
    ]
    assert who_holds(found, most=2) == "Held by g3 3 MiB, g2 2 MiB and 1 more."
    assert who_holds(found[:1]) == "Held by g3 3 MiB."
    assert who_holds([]) == ""
