"""Every check of one host, as pure functions of facts, one module per group."""

from ramshelf.core.catalog import GROUPS, not_for_root
from ramshelf.core.config import Config
from ramshelf.core.doctor.checks.config import check_config
from ramshelf.core.doctor.checks.confinement import check_confinement
from ramshelf.core.doctor.checks.guest import check_guests
from ramshelf.core.doctor.checks.hook import check_hook
from ramshelf.core.doctor.checks.medium import check_medium
from ramshelf.core.doctor.checks.numa import check_numa
from ramshelf.core.doctor.checks.placement import check_placement
from ramshelf.core.doctor.checks.ram import check_ram
from ramshelf.core.doctor.checks.store import check_store
from ramshelf.core.doctor.checks.versions import check_host, check_versions
from ramshelf.core.doctor.facts import Facts, StoreFacts
from ramshelf.core.findings import Finding
from ramshelf.core.store.find import NoStore


def check(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings of a host, by group.

    Where file-backed memory is switched off and there is no store, neither the store nor the hook
    is missed.
    """
    checks = [check_versions, check_host, check_confinement, check_config, check_guests, check_ram]
    checks += [check_numa, check_placement]
    unused = (
        isinstance(facts.config, Config)
        and facts.config.off
        and isinstance(facts.store, StoreFacts)
        and isinstance(facts.store.store, NoStore)
    )
    if not unused:
        checks += [check_store, check_medium, check_hook]
    found = [finding for each in checks for finding in each(facts)]
    if facts.root:
        found = [not_for_root(finding) for finding in found]
    groups = list(GROUPS)
    return tuple(sorted(found, key=lambda finding: groups.index(finding.group)))
