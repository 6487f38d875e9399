"""An executor whose workers may die: only the future of the call that they were in fails.

from dragon.futures import ProcessPoolExecutor

with ProcessPoolExecutor() as executor:
future = executor.with_options(timeout=10, retries=2).submit(work, 1)
"""

from dragon_overlay.pool.executor import Future, ProcessPoolExecutor

__all__ = ["Future", "ProcessPoolExecutor"]
