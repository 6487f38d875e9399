"""All groups there are."""

from mp import (  # noqa: F401 # importing them enters their groups
    connections,
    limits,
    managers,
    pools,
    queues,
    shared_objects,
    synchronization,
)
from mp.groups import GROUPS, is_free

__all__ = ["GROUPS", "is_free"]
