"""Queues of start method "dragon"."""

from dragon_overlay.queues import JoinableQueue as DragonJoinableQueue
from dragon_overlay.queues import Queue as DragonQueue
from dragon_overlay.queues import SimpleQueue as DragonSimpleQueue

__all__ = ["DragonJoinableQueue", "DragonQueue", "DragonSimpleQueue"]
