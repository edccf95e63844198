"""No core dumps: the memory of our processes holds secret values, and a dump is a file of it."""

import resource


def forbid_core_dumps() -> None:
    """Have the kernel write no core dump of this process and of what it starts, for good.

    Where dumps are piped to a program (`kernel.core_pattern` begins with `|`), the kernel leaves it
    to that program to respect this limit; docs/security.md says what to look at.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
