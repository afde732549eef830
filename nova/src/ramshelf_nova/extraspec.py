"""The flavor extra spec by which a flavor demands or forbids file-backed memory, and its validator.

``trait:COMPUTE_MEM_BACKING_FILE=required|forbidden`` does the same before the scheduler's filters
run, in Placement, and is to be preferred; this one counts too where traits of a flavor are for
somebody else to set.
"""

from nova.api.validation.extra_specs import base

NAME = "ramshelf:file_backed_memory"
REQUIRED, FORBIDDEN = "required", "forbidden"


def register() -> list[base.ExtraSpecValidator]:
    """What Nova's API asks for through the entry point ``nova.api.extra_spec_validators``."""
    return [
        base.ExtraSpecValidator(
            name=NAME,
            description=(
                "Whether servers must or must not run on hosts with file-backed memory. Evaluated "
                "by FileBackedMemoryFilter of ramshelf-nova."
            ),
            value={
                "type": str,
                "description": "Whether file-backed memory is required or forbidden.",
                "enum": [REQUIRED, FORBIDDEN],
            },
        )
    ]
