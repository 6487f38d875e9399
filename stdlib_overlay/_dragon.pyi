"""The C module of the runtime, for type checkers: what `_dragon/*.c` gives to Python.

A built-in module of the `dragon` executable, and an extension module for plain python3. There the
process has no node: only the types of named pools work, what needs a node raises RuntimeError.
"""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypedDict, final

from _typeshed import ReadableBuffer, WriteableBuffer

# What a Condition calls of its lock, whoever made that.
class _Lock(Protocol):
    def acquire(self, block: bool = ..., timeout: float | None = ...) -> bool: ...
    def release(self) -> None: ...

class _PoolStatistics(TypedDict):
    size_bytes: int  # the pool's limit
    committed_bytes: int  # with memory behind them
    free_bytes: int  # in no block
    n_blocks: int
    most_blocks: int  # that there have been at one time; 0: not counted
    max_blocks: int  # that there may be; 0: any number
    n_smallest: int  # blocks of the smallest size that there is room for

class PoolFull(MemoryError):
    """A pool cannot give a block: its limit or the system's memory is reached. Try again later."""

class StaleHandle(OSError):
    """A name of a shared object or block that leads nowhere, or into another program."""

class Destroyed(StaleHandle):
    """Somebody has destroyed the channel or lock; it may be while we waited."""

# ---- the node ----

def begin() -> None:
    """Begin to open the node, as it will be needed soon. Does not wait."""

def set_name(name: str, /) -> None:
    """Give this process its name for people, in the node's table."""

def set_patience(seconds: float, /) -> None:
    """For tests: waits are told of the dead after so long, in this process."""

def close_objects() -> None: ...
def is_head() -> bool: ...
def has_node() -> bool:
    """Return whether this process is part of a dragon runtime."""

def node_id() -> int:
    """Return the number of the node, which no other node has."""

def node_fd() -> int:
    """Return the descriptor of the default pool, with which a child joins."""

def watch_child(pid: int, /) -> None:
    """Have the supervisor take back what a child held when it dies."""

def follow(pid: int, /) -> None:
    """End this process as soon as process pid has ended. ProcessLookupError: it has."""

def pool_statistics() -> _PoolStatistics:
    """Measure the default pool."""

def cpu_limit() -> int | None:
    """How many processors the control groups' quotas are worth, rounded up; None: no quota."""

def last_error() -> str:
    """Return where this thread's last error in the runtime came from: "a.c:12 < b.c:40", or ""."""

def is_exporting() -> bool:
    """Return whether this thread is pickling a message, into which a shared object may go."""

# ---- views of shared objects: ValueError until made by __init__ or _create, or by _attach ----

class Object:
    """Base of the types that are views of an object in a pool. Can be weakly referenced."""

    def _export(self, in_message: bool, /) -> bytes:
        """Name the object for `_attach`; in_message: the bytes carry a use to be adopted."""

    def _is_same(self, other: object, /) -> bool:
        """Return whether both are views of the same shared object."""

class Queue(Object):
    """Base of the overlay's Queue and JoinableQueue."""

    @property
    def _is_closed(self) -> bool:
        """Whether close() was called here."""

    def _create(self, max_messages: int, max_bytes: int, /) -> None:
        """Make a new queue. 0: no limit."""

    def _attach(self, state: bytes, /) -> None:
        """Be a view of the queue that `_export` named."""

    def _poll(self, timeout: float | None, /) -> bool:
        """Wait for an object to be there; return whether one is."""

    def _fileno(self) -> int:
        """Return a descriptor that is readable while the queue holds something."""

    def _discard(self) -> None:
        """Drop the oldest object, if there is one."""

    def _task_done(self) -> None:
        """Say that an object taken out has been dealt with. ValueError: too often."""

    def _join(self) -> None:
        """Wait until all objects put have been dealt with."""

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put obj; it is in shared memory on return. Raises queue.Full, ValueError, PoolFull."""

    def put_nowait(self, obj: Any) -> None:
        """Put obj if there is room. Raises as put."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest object. Raises queue.Empty, ValueError."""

    def get_nowait(self) -> Any:
        """Take the oldest object if there is one. Raises as get."""

    def put_many(
        self, objs: Iterable[Any], block: bool = True, timeout: float | None = None
    ) -> int:
        """Put objects; return how many: fewer than all if there was no more room. Raises as put."""

    def get_many(self, n: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Wait for one object, and take what is there, at most n; none at the end of the time."""

    def qsize(self) -> int:
        """Return the number of objects, at this moment."""

    def empty(self) -> bool:
        """Return whether there is none, at this moment."""

    def full(self) -> bool:
        """Return whether a put would have to wait, at this moment."""

    def close(self) -> None:
        """Stop using the queue in this process."""

@final
class Pipe(Object):
    """One direction between two Connections."""

    def _create(self, max_messages: int, max_bytes: int, /) -> None:
        """Make a new pipe, in which so much may be on its way."""

    def _attach(self, state: bytes, /) -> None:
        """Be a view of the pipe that `_export` named."""

class Connection:
    """Base of the overlay's Connection: one end of a multiprocessing.Pipe."""

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""

    @property
    def readable(self) -> bool:
        """Whether it can receive."""

    @property
    def writable(self) -> bool:
        """Whether it can send."""

    @property
    def _has_message(self) -> bool:
        """Whether a message is there. False also at the end, and once closed."""

    @property
    def _socket(self) -> int:
        """The descriptor, for who neither reads nor writes it. OSError once closed."""

    @property
    def _pipes(self) -> tuple[Pipe | None, Pipe | None]:
        """(incoming, outgoing). OSError once closed."""

    def _begin(self, incoming: Pipe | None, outgoing: Pipe | None, fd: int, /) -> None:
        """Be an end of these pipes, on the socket fd, which becomes the connection's."""

    def close(self) -> None:
        """Close the connection in this process. A second time: nothing."""

    def fileno(self) -> int:
        """Return the socket, which is readable while there is something to receive."""

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait for something to receive, or the end; return whether there is."""

    def recv(self) -> Any:
        """Take the first object, waiting for one. EOFError at the end."""

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Take the first message as bytes. OSError if it is longer than maxlength."""

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Take the first message into buf; return its length. BufferTooShort has it otherwise."""

    def send(self, obj: Any) -> None:
        """Send obj, waiting for room. BrokenPipeError if nobody has the other end open."""

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send a part of buf as one message."""

def connect(
    first: Connection, second: Connection, duplex: bool, max_messages: int, max_bytes: int, /
) -> None:
    """Begin two new connections as the ends of a Pipe: both, or none."""

def wait(object_list: Any, timeout: float | None = None, /) -> list[Any] | None:
    """Return those of Connections, descriptors and objects with fileno() that are ready.

    None, at once: no Connection is among them.
    """

class SimpleQueue(Object):
    """Base of the overlay's SimpleQueue."""

    @property
    def _is_closed(self) -> bool:
        """Whether close() was called here."""

    def _create(self, max_messages: int, max_bytes: int, /) -> None:
        """Make a new queue. 0: no limit."""

    def _attach(self, state: bytes, /) -> None:
        """Be a view of the queue that `_export` named."""

    def _poll(self, timeout: float | None, /) -> bool:
        """Wait for an object to be there; return whether one is."""

    def _fileno(self) -> int:
        """Return a descriptor that is readable while the queue holds something."""

    def _discard(self) -> None:
        """Drop the oldest object, if there is one."""

    def put(self, obj: Any) -> None:
        """Put obj, waiting for room. Raises what pickling raises; OSError once closed."""

    def _put_letter(self, first: int, second: int, obj: Any, /) -> None:
        """Put obj, which arrives as (first, second, Letter). As put."""

    def get(self) -> Any:
        """Take the oldest object, waiting for one. OSError once closed."""

    def put_many(self, objs: Iterable[Any], /) -> int:
        """Put objects, waiting for room; return how many: all."""

    def get_many(self, n: int, /) -> list[Any]:
        """Wait for one object, and take what is there, at most n."""

    def empty(self) -> bool:
        """Return whether there is none, at this moment. OSError once closed."""

    def close(self) -> None:
        """Stop using the queue in this process."""

class SemLock(Object):
    """Base of the overlay's locks and semaphores: as _multiprocessing.SemLock."""

    SEM_VALUE_MAX: ClassVar[int]

    def __init__(self, kind: int, value: int, maximum: int, is_robust: bool = False) -> None: ...
    @property
    def owner_died(self) -> bool:
        """True for the holder of a robust lock whose last holder ended while it held the lock."""

    @property
    def kind(self) -> int:
        """0: recursive lock, 1: semaphore."""

    @property
    def maxvalue(self) -> int:
        """The value above which release fails."""

    @property
    def handle(self) -> int:
        """Where it lies in its pool."""

    @property
    def name(self) -> None:
        """None: it has no name in the file system."""

    def _attach(self, state: bytes, /) -> None:
        """Be a view of the object that `_export` named."""

    def _count(self) -> int:
        """Return how often it was acquired and not released by this process."""

    def _is_mine(self) -> bool:
        """Return whether the calling thread holds it."""

    def _get_value(self) -> int:
        """Return its value, at this moment."""

    def _is_zero(self) -> bool:
        """Return whether its value is zero, at this moment."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a unit, waiting for one; return whether it did."""

    def release(self) -> None:
        """Give a unit back. ValueError, AssertionError: it was not taken."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
        /,
    ) -> None: ...

class Event(Object):
    """Base of the overlay's Event: a flag that can be waited for."""

    def __init__(self) -> None: ...
    def _attach(self, state: bytes, /) -> None:
        """Be a view of the object that `_export` named."""

    def is_set(self) -> bool:
        """Return whether the flag is up."""

    def set(self) -> None:
        """Raise the flag and wake all that wait."""

    def clear(self) -> None:
        """Lower the flag."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the flag is up. False: timeout passed first."""

class Condition(Object):
    """Base of the overlay's Condition; the fastest lock for it is a SemLock."""

    _lock: _Lock  # set by __init__; after _attach by whoever called that

    def __init__(self, lock: _Lock) -> None: ...
    def _attach(self, state: bytes, /) -> None:
        """Be a view of the object that `_export` named, as yet without a lock."""

    def _n_waiting(self) -> int:
        """Return how many wait and have not been notified."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock."""

    def release(self) -> None:
        """Release the lock."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
        /,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, block until notified, take it again. False: timeout passed first."""

    def notify(self, n: int = 1) -> None:
        """Wake the n that have waited longest."""

    def notify_all(self) -> None:
        """Wake all that wait."""

class Barrier(Object):
    """Base of the overlay's Barrier: as threading.Barrier."""

    _action: Callable[[], object] | None  # called by the last to come
    _timeout: float | None  # the default of wait, seconds

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None: ...
    @property
    def parties(self) -> int:
        """How many it takes to pass."""

    @property
    def n_waiting(self) -> int:
        """How many wait now."""

    @property
    def broken(self) -> bool:
        """Whether it is broken; so until it is reset."""

    def _attach(self, state: bytes, /) -> None:
        """Be a view of the object that `_export` named. Action and timeout do not travel."""

    def wait(self, timeout: float | None = None) -> int:
        """Block until all parties came; return the caller's place. Raises BrokenBarrierError."""

    def reset(self) -> None:
        """Make it whole and empty; who waits gets BrokenBarrierError."""

    def abort(self) -> None:
        """Break it: who waits, now or later, gets BrokenBarrierError."""

# ---- shared ctypes ----

class SharedBuffer(Object):
    """Memory in the pool, until its last user has ended. ValueError until `_create`, `_attach`."""

    @property
    def _size(self) -> int:
        """In bytes."""

    def _create(self, size: int, /) -> None:
        """Take size bytes of the pool, zeroed. ValueError: negative, or has some; PoolFull."""

    def _attach(self, state: bytes, size: int, /) -> None:
        """Use size bytes of the memory that `_export` named. ValueError: has some; StaleHandle."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

@final
class Letter:
    """An object that has arrived and was not yet unpickled."""

    def open(self) -> Any:
        """Return the object; once. Raises what unpickling it does."""

def pickle_small(object: Any, max_bytes: int, /) -> bytes | None:
    """Return a pickle of an object. None: it is larger, cannot be pickled, or only as a message."""

PLACE_BYTES: int  # of the words and the journal of one place of a pool

@final
class PlaceWords:
    """The words and the journal of one place of a pool, see place_words.h."""

    def __new__(cls, memory: WriteableBuffer, place: int, n_places: int, /) -> Self:
        """Those of a place. ValueError: memory has not PLACE_BYTES for each."""

    def item_of(self, number: int, /) -> int | None:
        """Return the item of the task whose call has begun; None: it is not that task's."""

    def doing(self) -> int:
        """Return the word of the call that has begun last; 0: none."""

    def since(self) -> float:
        """Return when the latest call began, by the monotonic clock."""

    def kept(self, n_skipped: int, n: int, /) -> list[Any]:
        """Return the first n results of the journal, but for n_skipped. ValueError: not so many."""

    def clear(self) -> None:
        """Name no call and withdraw none: a new worker comes."""

    def withdraw(self, number: int, item: int, end: int, /) -> None:
        """Take back calls from an item of a task on, and those of tasks below the number end."""

def results_of(journal: bytes, n_skipped: int, n: int, /) -> list[Any]:
    """Return the n results in what a worker has sent of its journal, but for n_skipped."""

class Call:
    """Base of the jobs of one call, which may go to a worker and back past the dispatcher."""

    _desk: Desk
    _value: Any  # result or exception
    _job: int
    _pool: Any  # kept until the end, as are the next two
    func: Any
    items: Any
    _success: bool  # _value is a result
    _future: Any  # tells of its end, too; until then; is not to be None

    @property
    def _is_done(self) -> bool:
        """Whether it has ended."""

    def _end_call(self) -> None:
        """Let those who wait go on: the call has its answer."""

@final
class Desk:
    """Where a pool receives what its workers send, see desk.c."""

    number: int  # of the next task; changed by the dispatcher only
    is_open: bool  # calls may go past the dispatcher

    def __new__(
        cls,
        results: SimpleQueue,
        places: list[Any],
        idle: list[Any],
        waiting: Any,
        jobs: dict[int, Any],
        /,
    ) -> Self:
        """Receive from results.

        places: by their index; idle: those whose worker has no task; waiting: a deque of what waits
        for one; jobs: those that have not ended.
        """

    def give(self, call: Call, task: Any, pickle: bytes, /) -> bool:
        """Give a call to an idle worker. False: none is, or others are first."""

    def wait(self, call: Call, timeout: float | None, /) -> bool:
        """Wait for the end of a call; whether it has come. Any thread."""

    def ring(self) -> None:
        """Have the dispatcher look for orders. Any thread."""

    def next(self, is_needed: bool, timeout: float | None, /) -> Any:
        """Return the next message; None: it was rung for, or the time is over.

        Only for the dispatcher's thread. is_needed: be at the channel unless others are.
        """

class ResultIterator:
    """Base of the iterators over results, which have `_next_results(timeout)`: a list of some."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, or raise the exception of its call. TimeoutError: not there."""

class WorkerLoop:
    """Base of the class of a pool's workers: makes the calls of a task."""

    keep_ns: int  # results are kept for a common message so long
    probe: Callable[[str], object] | None  # told of each step before it is made; for tests

    def __init__(
        self,
        words: PlaceWords,
        put: Callable[[Any], object],
        place: int,
        generation: int,
        /,
    ) -> None:
        """Have the worker's place, and the put of the channel for results."""

    @property
    def is_calling(self) -> bool:
        """Whether the program's function is being called."""

    def begin(self, number: int, item: int, /) -> bool:
        """Begin the call of an item. False: it was withdrawn, and the pool was told."""

    def call_all(self, number: int, mode: int, func: Any, items: Any, /) -> None:
        """Call func with each item and send the results, until a call was withdrawn."""

    def finish(self) -> None:
        """Say that no call is under way and that all results were sent."""

class SynchronizedBase:
    """A ctypes object and a lock that is held around each access to it."""

    def __init__(self, obj: Any, lock: _Lock, code: str, is_plain: bool, /) -> None:
        """Put them together, once.

        code: of the numbers that obj consists of, as in the module struct, to have them read and
        written in C if they are in a SharedBuffer; " ": none. is_plain: the lock's methods are
        those of SemLock.
        """

    @property
    def _obj(self) -> Any:
        """The ctypes object."""

    @property
    def _lock(self) -> Any:
        """The lock."""

    def get_obj(self) -> Any:
        """Return the ctypes object."""

    def get_lock(self) -> Any:
        """Return the lock."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock."""

    def release(self) -> None:
        """Release the lock."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...

class SynchronizedValue(SynchronizedBase):
    """Base of the overlay's Synchronized."""

    value: Any

class SynchronizedArray(SynchronizedBase):
    """Base of the overlay's SynchronizedArray."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...

def synchronized_property(name: str, /) -> property:
    """Make a property of a SynchronizedBase: its object's attribute, under the lock."""

# ---- memory. These cannot be instantiated: each says who makes it ----

@final
class Pool:
    """A pool that this process has open. Made by `create`, `open` and `default`."""

    @classmethod
    def create(
        cls, name: str, size: int, uid: int, min_block_size: int, max_blocks: int, /
    ) -> Pool:
        """Make a pool of size bytes in the POSIX shared-memory file name. OSError, PoolFull."""

    @classmethod
    def open(cls, name: str, /) -> Pool:
        """Use the pool of that name. FileNotFoundError, StaleHandle."""

    @classmethod
    def default(cls) -> Pool:
        """Use the default pool of this process's node. RuntimeError: it has none."""

    @classmethod
    def unlink(cls, name: str, /) -> None:
        """Remove the file; those that have the pool open keep it."""

    def uid(self) -> int:
        """Return the number that the pool was made with."""

    def has_name(self, name: str, /) -> bool:
        """Return whether the file of that name is this pool's."""

    def alloc(self, size: int, label: int = 0, /) -> Allocation:
        """Take a block of size bytes; label: 0 to 3, for `blocks`, or ALLOC_HELD. PoolFull."""

    def alloc_wait(self, size: int, timeout: float | None, label: int = 0, /) -> Allocation | None:
        """Take a block of size bytes, waiting for room; None: none in time. PoolFull."""

    def find(self, offset: int, generation: int, /) -> Allocation:
        """Use the block that another process named by its `place`; it is shared. StaleHandle."""

    def has(self, offset: int, generation: int, /) -> bool:
        """Return whether there is such a block."""

    def statistics(self) -> _PoolStatistics:
        """Measure the pool. Looks at each block."""

    def blocks(self) -> list[tuple[int, int, int]]:
        """Return (offset, generation, label) of all blocks."""

    def free_blocks(self) -> dict[int, int]:
        """Return numbers by size of the blocks that could be allocated now, all of them."""

    def n_block_sizes(self) -> int:
        """Return how many sizes blocks can have."""

@final
class Allocation:
    """A block of a pool, freed only by `free`. Made by `Pool.alloc` and `Pool.find`."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def free(self) -> None:
        """Give the block back, while views of it exist here with the last. StaleHandle."""

    def detach(self) -> None:
        """Forget the block without freeing it. StaleHandle: it was freed."""

    def share(self) -> None:
        """Let the block stay when this process ends."""

    def hold(self) -> None:
        """Let the block be freed if this process ends before it gives it away."""

    def place(self) -> tuple[int, int]:
        """Return offset and generation of the block in its pool."""

    def address(self) -> int:
        """Return where it is in this process. StaleHandle."""

    def is_gone(self) -> bool:
        """Return whether it was freed or detached here."""

    def n_views(self) -> int:
        """Return how many views of it exist here."""

ALLOC_HELD: int  # in the place of a label: held by this process, freed if it is killed
BARRIER_MAX_PARTIES: int
BARRIER_PASSED: int  # outcomes of Channel.barrier_*
BARRIER_LAST: int
BARRIER_BROKEN: int
BARRIER_NOT_YET: int
CHANNEL_NAME_BYTES: int  # the longest description that Channel.send_name takes

@final
class Channel(Object):
    """A channel in a named pool. Made by `create` and `open`. All but facts, place: Destroyed."""

    @classmethod
    def create(
        cls,
        pool: Pool,
        uid: int,
        capacity: int,
        block_size: int,
        lock_type: int,
        flow_control: int,
        semaphore: tuple[int, int] | None,
        /,
    ) -> Channel:
        """Make a channel, or a semaphore with its first value and its maximum. PoolFull."""

    @classmethod
    def open(cls, pool: Pool, offset: int, generation: int, /) -> Channel:
        """Use the channel that another process named by its `place`. StaleHandle, Destroyed."""

    def destroy(self) -> None:
        """End the channel for all processes."""

    def send(
        self, payload: ReadableBuffer, hints: int, client_id: int, timeout: float | None, /
    ) -> bool:
        """Send a copy of the bytes; return whether there was room in time. PoolFull."""

    def send_block(
        self,
        offset: int,
        generation: int,
        size: int,
        hints: int,
        client_id: int,
        timeout: float | None,
        /,
    ) -> bool:
        """Send a block of the channel's pool; return whether there was room. StaleHandle."""

    def send_name(
        self, description: bytes, hints: int, client_id: int, timeout: float | None, /
    ) -> bool:
        """Send the description of memory in another pool; return whether there was room."""

    def receive(
        self, timeout: float | None, /
    ) -> tuple[bytes | Allocation, int, int, int, bool] | None:
        """Take (payload, size, hints, client_id, is_name); None: nothing came in time."""

    def watch(self, events: int, timeout: float | None, /) -> bool:
        """Wait for an event (1 message, 2 room, 4 empty, 8 full); return whether it came."""

    def count(self) -> int:
        """Return the number of messages, at this moment."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is a message. ValueError, OSError."""

    def facts(self) -> tuple[int, int, int, int, int, bool]:
        """Return number, capacity, block size, lock type, flow control; is it a semaphore?"""

    def semaphore_take(self, timeout: float | None, /) -> bool:
        """Take a unit; return whether there was one in time."""

    def semaphore_give(self) -> bool:
        """Give a unit; return false if the value is the maximum."""

    def semaphore_wait_zero(self, timeout: float | None, /) -> bool:
        """Wait until there is no unit; return whether that came in time."""

    def semaphore_value(self) -> int:
        """Return the number of units, at this moment."""

    def barrier_arrive(self, timeout: float | None, /) -> tuple[int, int, int]:
        """Return BARRIER_PASSED (wait now), _LAST, _BROKEN or _NOT_YET, generation and index."""

    def barrier_wait(self, generation: int, index: int, timeout: float | None, /) -> int:
        """Return BARRIER_PASSED, _BROKEN or _NOT_YET (call again)."""

    def barrier_finish(self) -> int | None:
        """Release all. Return BARRIER_PASSED or _BROKEN; None: not this thread's to do."""

    def barrier_abort(self) -> None:
        """Break the barrier."""

    def barrier_reset(self) -> None:
        """Make the barrier whole and empty."""

    def barrier_status(self) -> tuple[int, bool]:
        """Return how many parties wait, and whether the barrier is broken."""

    def blocked_receivers(self) -> int:
        """Return how many threads wait in a receive, at this moment."""

    def place(self) -> tuple[int, int]:
        """Return offset and generation of the channel in its pool."""

@final
class Lock:
    """A lock in memory of the program's. Made by `init` and `open`. ValueError once detached."""

    @staticmethod
    def size(kind: int, /) -> int:
        """Return the bytes that a lock takes up; 0: no such kind."""

    @classmethod
    def init(cls, kind: int, memory: WriteableBuffer, /) -> Lock:
        """Make a lock (1 FIFO, 2 FIFO in less memory, 3 greedy) in the writable buffer."""

    @classmethod
    def open(cls, memory: WriteableBuffer, /) -> Lock:
        """Use the lock in the writable buffer. StaleHandle: there is none; Destroyed."""

    def lock(self, timeout: float | None, /) -> bool | None:
        """Lock it; return whether the last holder died in it; None: not in time. Destroyed."""

    def try_lock(self) -> bool | None:
        """Lock it if it is free and nobody stands in line; else return None. Destroyed."""

    def unlock(self) -> None:
        """Unlock it. PermissionError: this thread has not locked it through this object."""

    def detach(self) -> None:
        """Forget it. OSError: a thread of this process holds it, or waits for it."""

    def destroy(self) -> None:
        """End it for all processes. OSError: another thread holds it."""

    def kind(self) -> int:
        """Return its kind, as `init` takes it."""

@final
class ChannelSet:
    """Channels that are waited for together. Made by `create`."""

    @classmethod
    def create(cls, channels: tuple[Channel, ...], events: int, /) -> ChannelSet:
        """Make a set that waits for events, as `Channel.watch` has them."""

    def wait(self, timeout: float | None, /) -> tuple[int, int] | None:
        """Return index of a channel and events; None: nothing came in time. Destroyed."""

@final
class Block:
    """Memory of a received array, freed with the last view of it. Made by a queue's get."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class _Sink:
    """The file that objects are pickled into. Made by a queue's put."""

    def write(self, data: ReadableBuffer, /) -> None: ...
    def take_buffer(self, pickle_buffer: Any, /) -> bool: ...
