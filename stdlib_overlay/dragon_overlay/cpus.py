"""How many processors this process may use: the default size of pools and executors.

``multiprocessing.cpu_count()`` stays what its documentation says, the processors of the machine.
"""

from __future__ import annotations

import os

import _dragon


def n_usable() -> int:
    """The processors of the affinity mask, or fewer if a control group's quota is worth fewer."""
    n_of_mask = len(os.sched_getaffinity(0))
    n_of_quota = _dragon.cpu_limit()
    return n_of_mask if n_of_quota is None else min(n_of_mask, n_of_quota)
