"""Exhaustive search of when a shared object is freed, while processes die.

An object has a *set of users*. A user is a process, or a block that a message is in and that lists
the object. It also has a word that says who frees it. Both change under a robust mutex, by one
store at a time (runtime/memory/object.h). The rules:

    open:    lock; if the object has a user: add this process; unlock
    close:   lock; if this is the only user: say who frees; take this user out; unlock; if it
             was the only one: finish the object
    export:  allocate a block; list the objects in it; add the block to each one's users
    receive: tag the block (channel/in_flight.h), commit; open what it lists; release the block
    release: for each object that the block lists: close, with the block as the user (nothing, if
             it is none); then free the block
    finish:  release the blocks of the messages in it, one by one, each before the tail passes it;
             free the object; then finish what has lost its last user by that
    sweep d: for each object: close, with d as the user; note those without users that d frees; for
             each block that is still d's and in no channel: release it; finish what was noted, and
             what that left without users. In d's name: the objects say that d frees them. d's
             number is given away after that
    fork:    claim a number for the copy; open everything in its name; fork; the copy makes the
             number its own. A sweep of the parent sweeps a number that nobody made its own

An object without users never has one again. Who takes the last user out frees it, or the sweep of
that process does. Taking out twice is taking out once, so whatever was cut short is done again from
its beginning.

All interleavings of these steps are visited (breadth first, sequentially consistent), with a death
before any step; whoever has nothing else to do sweeps the dead, one at a time, and may be killed
doing so. What in_flight.py searches is taken for granted: the slots of a channel are one value.

A state is wrong if an object is freed that a living process uses, or a message in a live channel,
or if two living processes finish the same object; an end (nobody can go on, all dead are swept) if
an object or a block is left that no living process and no message has.

Run as a program it prints the table; the tests are in test_models.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "counted": "an object has a number of users, and closing subtracts one",
    "freer_last": "who takes the last user out says afterwards who frees",
    "no_freer": "nobody says who frees: each sweep finishes what has no users",
    "unlocked": "closing takes no lock",
    "opened_anyway": "opening does not look whether there is a user",
    "listed_last": "a block is added to the users before it lists the object",
    "released_before_opened": "a receiver releases the block, then opens what it lists",
    "freed_before_released": "a block is freed, then taken out of the users",
    "popped_before_released": "finishing takes a message, then releases its block",
    "object_first": "finishing frees the object, then releases the blocks of its messages",
    "blocks_not_released": "a sweep frees the blocks of the dead without releasing them",
    "unborn_forgotten": "a sweep forgets the copies that the dead was about to make",
    "forked_first": "a process forks, then adds its copy to the users",
    "objects_last": "a sweep ends before it has finished what has no users",
}

FREE = 0
CHANNEL = -1
LIVE = 1
GONE = 2

Step = tuple[Any, ...]


class Object(NamedTuple):
    """A shared object; those that are channels have messages in them, named by their blocks.

    Users are processes, from 1 on, and blocks, from -1 on downwards.
    """

    life: int = FREE
    users: tuple[int, ...] = ()
    freer: int = 0
    messages: tuple[int, ...] = ()


class Block(NamedTuple):
    """What a message is in. `listed`: the object that it lists, 0 for none."""

    tag: int = FREE
    listed: int = 0


class Thread(NamedTuple):
    """One process: the steps that it has still to do, each of which may put others before them."""

    todo: tuple[Step, ...]
    views: frozenset[int] = frozenset()  # objects that the program has open
    block: int = 0  # of the message in its hands
    garbage: tuple[int, ...] = ()  # objects that it has to finish
    finishes: int = 0
    kept: frozenset[int] = frozenset()  # blocks that the sweep has read in channels
    is_dead: bool = False


class State(NamedTuple):
    """Everything. `lock`: who holds the mutex of the users; `sweeper`: that of the sweeps."""

    objects: tuple[Object, ...]
    blocks: tuple[Block, ...]
    threads: tuple[Thread, ...]
    lock: int = 0
    sweeper: int = 0
    unswept: frozenset[int] = frozenset()
    forking: frozenset[tuple[int, int]] = frozenset()  # parent, and the number of the copy
    n_deaths: int = 0
    wrong: str = ""


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        todo: for each process its steps; see `_STEPS`.
        views: for each process the objects that it has open at first.
        n_blocks: how many blocks there are.
        n_deaths: how many processes may be killed, each before any of its steps.
        n_forks: how many copies are forked.
        mutation: a key of MUTATIONS, or "".
    """

    todo: tuple[tuple[Step, ...], ...]
    views: tuple[tuple[int, ...], ...]
    n_blocks: int = 0
    n_deaths: int = 1
    n_forks: int = 0
    mutation: str = ""

    def first_state(self) -> State:
        """The objects that somebody has open are live, and these are their users."""
        made = [step[1] for todo in self.todo for step in todo if step[0] == "create"]
        n = max(*made, *(o for views in self.views for o in views), 1)
        users = [tuple(i for i, v in enumerate(self.views, 1) if o in v) for o in range(1, n + 1)]
        objects = tuple(Object(LIVE if u else FREE, u) for u in users)
        threads = tuple(Thread(t, frozenset(v)) for t, v in zip(self.todo, self.views, strict=True))
        threads += (Thread((), is_dead=True),) * self.n_forks
        return State(objects, (Block(),) * self.n_blocks, threads)


# ---- changing parts of a state ----


def _with(s: State, i: int, **changes: Any) -> State:
    thread = s.threads[i]._replace(**changes)
    return s._replace(threads=(*s.threads[:i], thread, *s.threads[i + 1 :]))


def _then(s: State, i: int, *steps: Step) -> State:
    """Put steps before those that the process still has to do."""
    return _with(s, i, todo=(*steps, *s.threads[i].todo))


def _object(s: State, o: int, **changes: Any) -> State:
    changed = s.objects[o - 1]._replace(**changes)
    return s._replace(objects=(*s.objects[: o - 1], changed, *s.objects[o:]))


def _block(s: State, b: int, **changes: Any) -> State:
    changed = s.blocks[b - 1]._replace(**changes)
    return s._replace(blocks=(*s.blocks[: b - 1], changed, *s.blocks[b:]))


# ---- the steps: each gives the state after it; None: it has to wait ----


def _lock(s: State, i: int, _: Setting) -> State | None:
    is_free = s.lock == 0 or s.threads[s.lock - 1].is_dead
    return s._replace(lock=i + 1) if is_free else None


def _unlock(s: State, _i: int, _: Setting) -> State:
    return s._replace(lock=0)


def _create(s: State, i: int, _: Setting, o: int) -> State:
    # Until it is complete it is a block of its process like others.
    s = _object(s, o, life=LIVE, users=(i + 1,))
    return _with(s, i, views=s.threads[i].views | {o})


def _open(s: State, i: int, _: Setting, o: int) -> State:
    return _then(s, i, ("lock",), ("add", o, i + 1), ("unlock",))


def _add(s: State, i: int, setting: Setting, o: int, user: int) -> State:
    object_ = s.objects[o - 1]
    if object_.life != LIVE or (not object_.users and setting.mutation != "opened_anyway"):
        return s  # StaleHandle
    if user == i + 1:
        s = _with(s, i, views=s.threads[i].views | {o})
    return _object(s, o, users=(*object_.users, user))


def _close(s: State, i: int, setting: Setting, o: int) -> State:
    if o not in s.threads[i].views:
        return s  # it could not be opened
    s = _with(s, i, views=s.threads[i].views - {o})
    return _take_out(s, i, setting, o, i + 1, i + 1, ("collect", i + 1))


def _take_out(
    s: State, i: int, setting: Setting, o: int, user: int, freer: int, *after: Step
) -> State:
    if setting.mutation == "unlocked":
        return _then(s, i, ("look", o, user, freer), *after)
    return _then(s, i, ("lock",), ("look", o, user, freer), ("unlock",), *after)


def _look(s: State, i: int, setting: Setting, o: int, user: int, freer: int) -> State:
    """Under the lock: what taking the user out takes."""
    object_, mutation = s.objects[o - 1], setting.mutation
    if object_.life != LIVE:
        return s
    if mutation == "counted" and object_.users:
        user = user if user in object_.users else object_.users[0]
    if user not in object_.users:
        mine = object_.freer == freer or mutation == "no_freer"
        is_left = user == freer and not object_.users and mine
        return _note(s, i, o) if is_left else s
    rest: list[Step] = [("erase", o, user)]
    if object_.users == (user,):
        rest = [("freer", o, freer), ("erase", o, user), ("note", o)]
        if mutation == "freer_last":
            rest = [("erase", o, user), ("freer", o, freer), ("note", o)]
    return _then(s, i, *rest)


def _note(s: State, i: int, o: int, *_: Any) -> State:
    garbage = s.threads[i].garbage
    return s if o in garbage else _with(s, i, garbage=(*garbage, o))


def _freer(s: State, i: int, setting: Setting, o: int, freer: int) -> State:
    return _object(s, o, freer=0 if setting.mutation == "no_freer" else freer)


def _erase(s: State, _i: int, _: Setting, o: int, user: int) -> State:
    users = list(s.objects[o - 1].users)
    if user in users:
        users.remove(user)
    return _object(s, o, users=tuple(users))


# Finishing: `freer` is in whose name.


def _collect(s: State, i: int, _: Setting, freer: int) -> State:
    garbage = s.threads[i].garbage
    if not garbage:
        return s
    s = _with(s, i, garbage=garbage[1:])
    return _then(s, i, ("finish", garbage[0], freer), ("collect", freer))


def _finish(s: State, i: int, setting: Setting, o: int, freer: int) -> State:
    object_ = s.objects[o - 1]
    if object_.life != LIVE or any(
        t.finishes == o and not t.is_dead for j, t in enumerate(s.threads) if j != i
    ):
        return s._replace(wrong="an object is finished twice")
    s = _with(s, i, finishes=o)
    if not object_.messages:
        return _then(s, i, ("free object", o))
    b = object_.messages[0]
    steps: list[Step] = [("release", b, freer), ("free block", b), ("pop", o, b)]
    if setting.mutation == "popped_before_released":
        steps = [steps[2], steps[0], steps[1]]
    if setting.mutation == "object_first":
        return _then(s, i, ("free object", o), *steps[:2])
    return _then(s, i, *steps, ("finish", o, freer))


def _free_object(s: State, i: int, _: Setting, o: int) -> State:
    return _with(_object(s, o, life=GONE, users=(), messages=()), i, finishes=0)


def _pop(s: State, _i: int, _: Setting, o: int, b: int) -> State:
    return _object(s, o, messages=tuple(m for m in s.objects[o - 1].messages if m != b))


# Messages.


def _export(s: State, i: int, setting: Setting, b: int, o: int) -> State:
    """A block in the process's hands that lists an object, which the process has open."""
    if o not in s.threads[i].views:
        return s
    s = _with(_block(s, b, tag=i + 1), i, block=b)
    steps: list[Step] = [("list", b, o), ("lock",), ("add", o, -b), ("unlock",)]
    if setting.mutation == "listed_last":
        steps = [*steps[1:], steps[0]]
    return _then(s, i, *steps)


def _list(s: State, _i: int, _: Setting, b: int, o: int) -> State:
    return _block(s, b, listed=o)


def _send(s: State, i: int, _: Setting, c: int) -> State:
    t = s.threads[i]
    if t.block == 0 or c not in t.views:
        return s
    s = _object(s, c, messages=(*s.objects[c - 1].messages, t.block))
    return _with(s, i, block=0)


def _receive(s: State, i: int, setting: Setting, c: int) -> State | None:
    """The receivers' lock is taken to be the one there is."""
    if c not in s.threads[i].views:
        return s
    return _then(s, i, ("lock",), ("take", c), ("unlock",), ("unpack",))


def _take(s: State, i: int, _: Setting, c: int) -> State:
    if not s.objects[c - 1].messages:
        return s
    b = s.objects[c - 1].messages[0]
    s = _block(s, b, tag=i + 1)
    return _then(s, i, ("commit", c, b))


def _commit(s: State, i: int, setting: Setting, c: int, b: int) -> State:
    return _with(_pop(s, i, setting, c, b), i, block=b)


def _unpack(s: State, i: int, setting: Setting) -> State:
    b = s.threads[i].block
    if b == 0:
        return s
    listed = s.blocks[b - 1].listed
    opening = [("lock",), ("add", listed, i + 1), ("unlock",), ("has", listed)]
    steps: list[Step] = [*opening, ("drop",)]
    if setting.mutation == "released_before_opened":
        steps = [("drop",), *opening]
    return _then(s, i, *steps)


def _has(s: State, i: int, _: Setting, o: int) -> State:
    return s if o in s.threads[i].views else s._replace(wrong="a message arrives incomplete")


def _drop(s: State, i: int, setting: Setting) -> State:
    """The message in the process's hands."""
    b = s.threads[i].block
    if b == 0:
        return s
    steps: list[Step] = [("release", b, i + 1), ("free block", b)]
    if setting.mutation == "freed_before_released":
        steps.reverse()
    return _then(s, i, *steps, ("collect", i + 1))


def _release(s: State, i: int, setting: Setting, b: int, freer: int) -> State:
    listed = s.blocks[b - 1].listed
    return s if listed == 0 else _take_out(s, i, setting, listed, -b, freer)


def _free_block(s: State, i: int, _: Setting, b: int) -> State:
    if s.threads[i].block == b:
        s = _with(s, i, block=0)
    return _block(s, b, tag=FREE, listed=0)


# Forking: the parent adds its copy to the users beforehand, under a number that it claims for it.


def _fork(s: State, i: int, setting: Setting, child: int, todo: tuple[Step, ...]) -> State:
    views = tuple(sorted(s.threads[i].views))
    s = s._replace(forking=s.forking | {(i + 1, child)})
    adding = [step for o in views for step in (("lock",), ("add", o, child), ("unlock",))]
    if setting.mutation == "forked_first":
        return _then(s, i, ("born", child, views, todo), *adding)
    return _then(s, i, *adding, ("born", child, views, todo))


def _born(
    s: State, i: int, _: Setting, child: int, views: tuple[int, ...], todo: tuple[Step, ...]
) -> State:
    copy = Thread((("register", i + 1, views), *todo), is_dead=False)
    return s._replace(threads=(*s.threads[: child - 1], copy, *s.threads[child:]))


def _register(s: State, i: int, _: Setting, parent: int, views: tuple[int, ...]) -> State:
    """The copy makes the number its own, unless a sweep of its parent has."""
    if (parent, i + 1) not in s.forking:
        return s  # none of the objects is its
    return _with(s._replace(forking=s.forking - {(parent, i + 1)}), i, views=frozenset(views))


# The sweep of the dead.


def _sweep(s: State, i: int) -> Iterator[State]:
    if s.sweeper != 0 and not s.threads[s.sweeper - 1].is_dead:
        return
    for d in s.unswept:
        objects = [("sweep object", d, o) for o in range(1, len(s.objects) + 1)]
        channels = [("read", o) for o in range(1, len(s.objects) + 1)]
        blocks = [("sweep block", d, b) for b in range(1, len(s.blocks) + 1)]
        begun = s._replace(sweeper=i + 1)
        yield _then(begun, i, *objects, *channels, *blocks, ("collect", d), ("swept", d))


def _sweep_object(s: State, i: int, setting: Setting, d: int, o: int) -> State:
    return _take_out(s, i, setting, o, d, d)


def _read(s: State, i: int, _: Setting, o: int) -> State:
    return _with(s, i, kept=s.threads[i].kept | set(s.objects[o - 1].messages))


def _sweep_block(s: State, i: int, setting: Setting, d: int, b: int) -> State:
    if s.blocks[b - 1].tag != d:
        return s
    if b in s.threads[i].kept:
        return _block(s, b, tag=CHANNEL)
    if setting.mutation == "blocks_not_released":
        return _then(s, i, ("free block", b))
    return _then(s, i, ("release", b, d), ("free block", b))


def _swept(s: State, i: int, setting: Setting, d: int) -> State:
    lost = {(parent, child) for parent, child in s.forking if parent == d}
    if setting.mutation == "unborn_forgotten":
        lost = set()
    s = s._replace(forking=s.forking - lost, unswept=s.unswept | {child for _, child in lost})
    return _with(s._replace(unswept=s.unswept - {d}, sweeper=0), i, kept=frozenset())


_STEPS: dict[str, Any] = {
    "lock": _lock,
    "unlock": _unlock,
    "create": _create,
    "open": _open,
    "add": _add,
    "close": _close,
    "look": _look,
    "note": lambda s, i, _, o: _note(s, i, o),
    "freer": _freer,
    "erase": _erase,
    "collect": _collect,
    "finish": _finish,
    "free object": _free_object,
    "pop": _pop,
    "export": _export,
    "list": _list,
    "send": _send,
    "receive": _receive,
    "take": _take,
    "commit": _commit,
    "unpack": _unpack,
    "drop": _drop,
    "has": _has,
    "fork": _fork,
    "born": _born,
    "register": _register,
    "release": _release,
    "free block": _free_block,
    "sweep object": _sweep_object,
    "read": _read,
    "sweep block": _sweep_block,
    "swept": _swept,
}


# ---- the search ----


def _steps_of(s: State, i: int, setting: Setting) -> Iterator[State]:
    t = s.threads[i]
    if t.is_dead:
        return
    if not t.todo:
        yield from _sweep(s, i)
        return
    what, *arguments = t.todo[0]
    if what == "collect" and setting.mutation == "objects_last" and s.sweeper == i + 1:
        yield _with(s, i, todo=(t.todo[1], t.todo[0], *t.todo[2:]))
        return
    after = _STEPS[what](_with(s, i, todo=t.todo[1:]), i, setting, *arguments)
    if after is not None:
        yield after


def _kill(s: State, i: int) -> State:
    s = _with(s, i, **Thread((), is_dead=True)._asdict())
    is_unborn = any(child == i + 1 for _, child in s.forking)
    died = s.unswept if is_unborn else s.unswept | {i + 1}
    return s._replace(unswept=died, n_deaths=s.n_deaths + 1)


def _wrong_now(s: State) -> str:
    """What must hold in every state."""
    for t in s.threads:
        if any(s.objects[o - 1].life == GONE for o in t.views):
            return "a living process loses an object"
    for channel in s.objects:
        listed = [s.blocks[b - 1].listed for b in channel.messages if channel.users]
        if any(o and s.objects[o - 1].life == GONE for o in listed):
            return "a message loses an object"
    return s.wrong


def _wrong_at_end(s: State) -> str:
    """What must hold when nobody can go on."""
    if s.unswept or any(t.todo for t in s.threads):
        return "" if all(t.is_dead for t in s.threads) else "nobody can go on"
    in_messages = {b for o in s.objects if o.life == LIVE for b in o.messages}
    used = {o for t in s.threads for o in t.views}
    # Until its parent ends, nobody knows of a copy that died before it made its number its own.
    unborn = {child for parent, child in s.forking if not s.threads[parent - 1].is_dead}
    used |= {o for o, x in enumerate(s.objects, 1) if unborn & set(x.users)}
    used |= {s.blocks[b - 1].listed for b in in_messages}
    if any(o.life == LIVE and n not in used for n, o in enumerate(s.objects, 1)):
        return "an object is left"
    if any(block.tag != FREE and b not in in_messages for b, block in enumerate(s.blocks, 1)):
        return "a block is left"
    return ""


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until something is wrong.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = [a for i in range(len(s.threads)) for a in _steps_of(s, i, setting)]
        wrong = _wrong_now(s) or ("" if own else _wrong_at_end(s))
        if wrong:
            result.note(wrong, s)
            return ()
        may_die = s.n_deaths < setting.n_deaths
        deaths = [_kill(s, i) for i, t in enumerate(s.threads) if may_die and not t.is_dead]
        return (*own, *deaths)

    return visit(setting.first_state(), steps, setting)


#: Object 1 is a channel, object 2 something that is sent through it.
_SENDER = (("create", 2), ("export", 1, 2), ("close", 2), ("send", 1), ("close", 1))
_RECEIVER = (("receive", 1), ("close", 2), ("close", 1))
SETTINGS = {
    "two close": Setting(((("close", 1),), (("close", 1),), ()), ((1,), (1,), ()), n_deaths=2),
    "one opens by a stale name": Setting(
        ((("close", 1),), (("open", 1), ("close", 1)), ()), ((1,), (), ()), n_deaths=2
    ),
    "sent and received": Setting((_SENDER, _RECEIVER, ()), ((1,), (1,), ()), 1, n_deaths=2),
    "the sweeper dies, too": Setting(
        (_SENDER, (("close", 1),), (), ()), ((1,), (1,), (), ()), 1, n_deaths=3
    ),
    "sent and not received": Setting((_SENDER, (("close", 1),)), ((1,), (1,)), 1, n_deaths=1),
    "made and not sent": Setting(
        ((("create", 2), ("export", 1, 2), ("close", 2), ("drop",), ("close", 1)), ()),
        ((1,), (1,)),
        1,
        n_deaths=1,
    ),
    "a channel in a channel": Setting(
        (
            (
                ("create", 2),
                ("create", 3),
                ("export", 1, 3),
                ("send", 2),
                ("export", 2, 2),
                ("send", 1),
                ("close", 3),
                ("close", 2),
                ("close", 1),
            ),
            (("close", 1),),
            (),
        ),
        ((1,), (1,), ()),
        2,
        n_deaths=2,
    ),
    "forked": Setting(
        ((("fork", 3, (("close", 1),)), ("close", 1)), ()), ((1,), ()), n_deaths=2, n_forks=1
    ),
}
#: What brings each mutation out.
BROKEN = {
    "counted": SETTINGS["sent and received"],
    "freer_last": SETTINGS["two close"],
    "no_freer": SETTINGS["two close"],
    "unlocked": SETTINGS["two close"],
    "opened_anyway": SETTINGS["one opens by a stale name"],
    "listed_last": SETTINGS["made and not sent"],
    "released_before_opened": SETTINGS["sent and received"],
    "freed_before_released": SETTINGS["sent and received"],
    "popped_before_released": SETTINGS["sent and not received"],
    "object_first": SETTINGS["sent and not received"],
    "blocks_not_released": SETTINGS["made and not sent"],
    "unborn_forgotten": SETTINGS["forked"],
    "forked_first": SETTINGS["forked"],
    "objects_last": SETTINGS["two close"],
}


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
