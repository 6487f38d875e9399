"""The start method "dragon" of multiprocessing, over the runtime.

The modules have the names of the standard library's: ``context``, ``process``,
``queues``, ``synchronize``, ``pool``, ``reduction``. Users reach them through
``multiprocessing``; pickles name this package.
"""

# Whoever comes here first: the standard library's contexts are there, and know
# "dragon", before any module of this package needs them.
import multiprocessing.context  # noqa: F401
