"""The driver of a running nova-compute, called by many threads at once; it runs in Nova's process.

Import this once Nova has chosen its threads: if they are eventlet's, so are the threads in here.
"""

import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nova import objects
from nova.compute.manager import ComputeManager
from nova.compute.provider_tree import ProviderTree
from nova.context import get_admin_context
from nova.objects.base import obj_to_primitive

THREADS = 16
LOOKERS = 2
"""How many of them make nova-compute look at its resources.

It makes one look after the other, and servers that start wait in the same line.
"""

FOREIGN = ("CUSTOM_OF_OTHERS", "OWNER_NOVA")
"""Traits that the provider has before the driver sees it."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the threads saw.

    ``calls`` and ``seen`` are by the name of what was called: how often it returned, and each
    result that differs from those before. ``kernel_threads`` is how many of the kernel's threads
    the callers were.
    """

    calls: Mapping[str, int]
    seen: Mapping[str, list[str]]
    errors: list[str]
    kernel_threads: int


def hammer(manager: ComputeManager, server: str, seconds: float) -> Report:
    """Call all that the driver overrides from 16 threads for some seconds, each in its own order.

    Two of them have nova-compute itself look at the host's resources besides. ``server`` is the
    UUID of one that runs here all the time, of which it is asked whether it could move.
    """
    calls = _calls(manager, server)
    counts: Counter[str] = Counter()
    seen: dict[str, set[str]] = defaultdict(set)
    errors: list[str] = []
    kernel_threads: set[int] = set()
    together = threading.Barrier(THREADS)
    writing = threading.Lock()

    def work(number: int) -> None:
        kernel_threads.add(threading.get_native_id())
        names = [name for name in calls if name != "look" or number < LOOKERS]
        names = names[number % len(names) :] + names[: number % len(names)]
        together.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name in names:
                try:
                    result = calls[name]()
                except Exception:  # noqa: BLE001 - the test is told
                    errors.append(f"{name}: {traceback.format_exc()[-2000:]}")
                    continue
                with writing:
                    counts[name] += 1
                    seen[name].add(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Report(
        calls=dict(counts),
        seen={name: sorted(results) for name, results in seen.items()},
        errors=errors[:5],
        kernel_threads=len(kernel_threads),
    )


def _calls(manager: ComputeManager, uuid: str) -> dict[str, Callable[[], str]]:
    """Return what is called, by its name; each returns what of its result must not change."""
    driver: Any = manager.driver
    admin = get_admin_context()
    [node] = objects.ComputeNodeList.get_all_by_host(admin, manager.host)
    server = objects.Instance.get_by_uuid(admin, uuid)
    name, info = node.hypervisor_hostname, obj_to_primitive(node)

    def provider() -> str:
        tree = ProviderTree()
        tree.new_root(name, node.uuid)
        tree.add_traits(name, *FOREIGN)
        driver.update_provider_tree(tree, name)
        data = tree.data(name)
        kept = {each for each in data.traits if each in FOREIGN or "RAMSHELF" in each}
        return f"{data.inventory['MEMORY_MB']['total']} {' '.join(sorted(kept))}"

    def resources() -> str:
        return str(driver.get_available_resource(name)["stats"]["ramshelf_store_total_mib"])

    def look() -> str:
        manager.update_available_resource(get_admin_context())
        return ""

    def backing() -> str:
        image = objects.ImageMeta(properties=objects.ImageMetaProps())
        found = driver._get_guest_memory_backing_config(None, None, server.flavor, image)  # noqa: SLF001
        return str(found.to_xml(pretty_print=False))

    def move() -> str:
        """Ask both sides whether the server could move, as if this host were each of them."""
        context = get_admin_context()
        wanted = driver.check_can_live_migrate_destination(context, server, info, info)
        try:
            driver.check_can_live_migrate_source(context, server, wanted)
        finally:
            driver.cleanup_live_migration_destination_check(context, wanted)
        return f"file-backed: {wanted.dst_wants_file_backed_memory}"

    return {
        "provider": provider,
        "resources": resources,
        "look": look,
        "backing": backing,
        "move": move,
    }
