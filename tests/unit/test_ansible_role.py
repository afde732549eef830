"""The Ansible role: its variables are described wherever they should be."""

import re
from pathlib import Path
from typing import Any

import yaml

from ramshelf.cli.store import create

ROLE = Path(__file__).parents[2] / "deploy/ansible/roles/ramshelf"


def loaded(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text())


def test_each_variable_has_the_same_default_in_the_role_its_specification_and_its_readme() -> None:
    defaults = loaded("defaults/main.yml")
    options = loaded("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == defaults
    table = (ROLE / "README.md").read_text()
    rows = re.findall(r"^\| `(ramshelf_\w+)` \| `(.*?)` \|", table, re.MULTILINE)
    assert {name: yaml.safe_load(text) for name, text in rows} == defaults


def test_each_variable_is_used_and_each_that_is_used_is_described() -> None:
    files = [
        path
        for part in ("tasks", "handlers", "templates")
        for path in (ROLE / part).rglob("*")
        if path.is_file()
    ]
    text = "".join(path.read_text() for path in files)
    registered = re.findall(r"register: (\w+)", text)
    of_tasks = re.findall(r"^ {4}(ramshelf_\w+):", text, re.MULTILINE)
    own = {*registered, *of_tasks}
    assert set(re.findall(r"\bramshelf_\w+", text)) - own == loaded("defaults/main.yml").keys()


def test_the_store_s_options_are_options_of_the_command_line() -> None:
    options = loaded("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    known = options["ramshelf_store"]["options"]
    offered = {name for parameter in create.params for name in parameter.opts}
    assert {f"--{name}" for name in known} <= offered
