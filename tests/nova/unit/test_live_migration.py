"""A live migration and where it may go: server and host are rows of a real cell database."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nova.context
import pytest
from nova import objects
from nova.compute import task_states
from nova.db.main import api, models
from nova.scheduler.filters import HostFilterHandler
from os_traits import COMPUTE_MEM_BACKING_FILE

from ramshelf_nova.backing import Backings
from ramshelf_nova.core.store.kind import Kind
from ramshelf_nova.demands import left_by_live_migration
from ramshelf_nova.filter import FileBackedMemoryFilter
from support.nova_objects import compute_node, host, host_uuid, request
from support.placement_answers import Placement

HOSTS = {
    "file1": (COMPUTE_MEM_BACKING_FILE, Kind.DISK.trait),
    "file2": (COMPUTE_MEM_BACKING_FILE, Kind.SWAP.trait),
    "anonymous1": (),
    "anonymous2": (),
}


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cell whose database knows the hosts."""
    path: Path = tmp_path_factory.mktemp("cell") / "cell.sqlite"
    mapping = objects.CellMapping(
        id=1,
        uuid=str(uuid.uuid4()),
        name="cell1",
        transport_url="none:///",
        database_connection=f"sqlite:///{path}",
        disabled=False,
    )
    context = nova.context.get_admin_context()
    with nova.context.target_cell(context, mapping) as targeted:
        models.BASE.metadata.create_all(api.get_engine(context=targeted))
        for name in HOSTS:
            node = compute_node(name)
            node._context = targeted  # noqa: SLF001 - as Nova's own constructors do
            node.create()
        yield mapping


def move(cell: Any, source: str, task: str | None) -> Any:
    """The request of a server on ``source`` that is at ``task``.

    It is as the conductor makes it for every move.
    """
    destination = objects.Destination(cell=cell)
    spec = request(destination=destination)
    spec.ignore_hosts = [source]
    with nova.context.target_cell(nova.context.get_admin_context(), cell) as context:
        node = objects.ComputeNode.get_by_host_and_nodename(context, source, source)
        objects.Instance(
            context,
            uuid=spec.instance_uuid,
            project_id="project",
            user_id="user",
            host=source,
            node=source,
            compute_id=node.id,
            task_state=task,
        ).create()
    return spec


def passing(spec: Any) -> list[str]:
    filter_ = FileBackedMemoryFilter(Backings(Placement(HOSTS).get))
    hosts = [host(name) for name in HOSTS if name not in (spec.ignore_hosts or ())]
    return [each.host for each in HostFilterHandler().get_filtered_objects([filter_], hosts, spec)]


def test_from_a_file_backed_host_only_to_another(cell: Any) -> None:
    assert passing(move(cell, "file1", task_states.MIGRATING)) == ["file2"]


def test_from_anonymous_memory_only_to_the_same(cell: Any) -> None:
    assert passing(move(cell, "anonymous2", task_states.MIGRATING)) == ["anonymous1"]


def test_what_the_flavor_asks_for_holds_as_well(cell: Any) -> None:
    spec = move(cell, "file1", task_states.MIGRATING)
    spec.flavor.extra_specs = {"ramshelf:file_backed_memory": "forbidden"}
    assert passing(spec) == []


@pytest.mark.parametrize(
    "task",
    [
        task_states.RESIZE_PREP,
        task_states.REBUILDING,
        task_states.UNSHELVING,
        task_states.SCHEDULING,
        None,
    ],
)
def test_other_moves_may_change_the_backing(cell: Any, task: str | None) -> None:
    spec = move(cell, "file1", task)
    assert left_by_live_migration(spec) is None
    assert passing(spec) == ["file2", "anonymous1", "anonymous2"]


def test_a_server_that_no_cell_has_yet_is_not_moving(cell: Any) -> None:
    assert left_by_live_migration(request(destination=objects.Destination(cell=cell))) is None


def test_a_host_that_a_user_names_is_no_move() -> None:
    assert left_by_live_migration(request(destination=objects.Destination(host="file1"))) is None


def test_placement_away_stops_it(cell: Any) -> None:
    placement = Placement(HOSTS)
    placement.away = True
    filter_ = FileBackedMemoryFilter(Backings(placement.get))
    spec = move(cell, "file1", task_states.MIGRATING)
    assert filter_.filter_all([host("file2")], spec) == []


def test_the_source_is_named_by_its_provider(cell: Any) -> None:
    assert left_by_live_migration(move(cell, "file2", task_states.MIGRATING)) == host_uuid("file2")
