"""The extra spec by which a flavor demands or forbids file-backed memory, and its validator.

``trait:COMPUTE_MEM_BACKING_FILE=required|forbidden`` does the same in Placement, before the
scheduler's filters run, and is to be preferred. This one also counts where somebody else sets the
traits of a flavor.
"""

from nova.api.validation.extra_specs import base

NAME = "ramshelf:file_backed_memory"
REQUIRED, FORBIDDEN = "required", "forbidden"


def register() -> list[base.ExtraSpecValidator]:
    """Return what Nova's API asks for at the entry point ``nova.api.extra_spec_validators``."""
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
