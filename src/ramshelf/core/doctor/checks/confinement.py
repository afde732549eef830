"""Checks whether guests are kept apart, by sVirt or by a user of its own for each."""

from collections import Counter
from collections.abc import Iterator

from ramshelf.core.catalog import finding
from ramshelf.core.doctor.confinement import MANDATORY
from ramshelf.core.doctor.facts import Facts, GuestFacts
from ramshelf.core.findings import Finding
from ramshelf.core.host import Account, Unknown


def check_confinement(facts: Facts) -> Iterator[Finding]:
    """Check the host's security driver, then the guests that go without.

    What cannot be had is told elsewhere.
    """
    if isinstance(facts.hypervisor, Unknown):
        return
    models, guests = facts.hypervisor.security_models, facts.guests
    running = () if isinstance(guests, Unknown) else guests
    sharing = _sharing(running, facts.qemu_user)
    exposed = [each.guest.name for each in sharing if not each.labels.confined]
    if models is None:
        yield finding(
            "host.confinement-unknown", "libvirt does not tell which security driver it uses."
        )
    elif MANDATORY.isdisjoint(models):
        if sharing or not running:  # even if these started under a driver: the next ones will not
            yield finding(
                "host.unconfined",
                f"No security driver confines guests, and they run as {_user(facts.qemu_user)}: a "
                "QEMU that was taken over can read, change and kill the others.",
                models=list(models),
                guests=exposed,
            )
        return
    for name in exposed:
        yield finding(
            "guest.unconfined",
            f"Guest {name} is not confined, and runs as root or as the user of other guests: if its"
            " QEMU is taken over it can read and change their memory.",
            guest=name,
        )


def _sharing(running: tuple[GuestFacts, ...], account: Account | Unknown) -> list[GuestFacts]:
    """Return the guests that have no user of their own."""
    shared = None if isinstance(account, Unknown) else account.uid
    uids = {
        each.guest.name: shared if each.labels.uid is None else each.labels.uid for each in running
    }
    users = Counter(uids.values())
    return [
        each
        for each in running
        if uids[each.guest.name] in {None, 0, shared} or users[uids[each.guest.name]] > 1
    ]


def _user(account: Account | Unknown) -> str:
    return "one user" if isinstance(account, Unknown) else f"one user, {account.user}"
