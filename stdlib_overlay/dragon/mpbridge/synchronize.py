"""Locks, semaphores, events, conditions and barriers of start method "dragon"."""

from dragon_overlay.synchronize import Barrier as DragonBarrier
from dragon_overlay.synchronize import BoundedSemaphore as DragonBoundedSemaphore
from dragon_overlay.synchronize import Condition as DragonCondition
from dragon_overlay.synchronize import Event as DragonEvent
from dragon_overlay.synchronize import Lock as DragonLock
from dragon_overlay.synchronize import RLock as DragonRLock
from dragon_overlay.synchronize import Semaphore as DragonSemaphore

__all__ = [
    "DragonBarrier",
    "DragonBoundedSemaphore",
    "DragonCondition",
    "DragonEvent",
    "DragonLock",
    "DragonRLock",
    "DragonSemaphore",
]
