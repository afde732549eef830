"""Ansible's module ``ramshelf``: the verbs of the command line that change a host."""

import json
import shlex
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ramshelf
short_description: Run a verb of ramshelf that changes the host
description:
  - Each such verb finds out what is still to be done, so where nothing is, nothing is changed.
  - In check mode it is run with C(--dry-run). What is done, or would be, is the diff.
options:
  argv:
    description: The verb and its options.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Make the store
  ramshelf:
    argv: [store, create, --kind, swap, --size, 64G, --file, /srv/ramshelf.swap]
"""

RETURN = r"""
actions:
  description: What was done, or would be. Each has C(why), and the exact C(change) as lines.
  returned: where ramshelf is installed
  type: list
  elements: dict
"""


def main() -> None:
    """Run the verb, and tell Ansible what it did."""
    module = AnsibleModule(
        argument_spec={"argv": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    argv = module.params["argv"]
    program = module.get_bin_path("ramshelf", opt_dirs=["/usr/local/bin"])
    if program is None:
        without_program(module, argv)
        return
    dry_run = ["--dry-run"] if module.check_mode else []
    status, answer, said = module.run_command([program, *argv, *dry_run, "--json", "--quiet"])
    if status != 0:
        module.fail_json(msg=reason(said))
    document = json.loads(answer)
    for warning in document.get("warnings", []):
        module.warn(warning)
    for note in document.get("notes", []):
        module.warn(f"{note['message']} {note['hint']}")
    actions = document["actions"]
    module.exit_json(changed=bool(actions), actions=actions, diff=shown(plan(actions)))


def without_program(module: Any, argv: list[str]) -> None:
    """Answer for a host that ramshelf is not installed on, as a host is in its first check."""
    if "remove" in argv:
        module.exit_json(changed=False, msg="ramshelf is not installed.")
    if not module.check_mode:
        module.fail_json(msg="ramshelf is not installed: see ramshelf_packages.")
    later = f"# Once ramshelf is installed\n{shlex.join(('ramshelf', *argv))}"
    module.exit_json(changed=True, diff=shown(later))


def reason(said: str) -> str:
    """Return the sentence, code and hint of an error that was said as JSON."""
    try:
        error = json.loads(said)["error"]
    except (ValueError, KeyError):
        return said.strip()
    return f"{error['message']} [{error['code']}] {error['hint']}".strip()


def plan(actions: list[dict[str, Any]]) -> str:
    """Return the plan as ``--dry-run`` prints it."""
    return "\n\n".join("\n".join((f"# {each['why']}", *each["change"])) for each in actions)


def shown(text: str) -> dict[str, str]:
    """Return the text as Ansible's ``--diff`` shows it."""
    return {"prepared": f"{text}\n"} if text else {}


if __name__ == "__main__":
    main()
