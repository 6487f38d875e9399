"""numpy arrays through every carrier: children say what they got, and send it back changed."""

import hashlib
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

POINT = np.dtype([("x", "<f8"), ("name", "U8"), ("cells", "<i4", (2, 3))])


def arrays():
    """By a name for each: the kinds of arrays that are pickled in different ways."""
    found = {
        f"{n} bytes": np.arange(n, dtype=np.uint8) for n in (0, 1, 1000, 65535, 65536, 1 << 20)
    }
    for dtype in (
        "?",
        "i1",
        "<i8",
        ">i8",
        "f2",
        "<f4",
        ">f8",
        "c16",
        "S5",
        "U5",
        "M8[s]",
        "m8[ms]",
    ):
        for n in (7, 70000):
            found[f"{n} of {dtype}"] = (np.arange(n) % 100).astype(dtype)
    large = np.arange(60000.0).reshape(200, 300)
    found |= {
        "Fortran order, small": np.asfortranarray(large[:5, :5]),
        "Fortran order": np.asfortranarray(large),
        "every other": large[::2, ::3],
        "backwards": large[::-1],
        "transposed": large.reshape(20, 30, 100).transpose(2, 0, 1),
        "broadcast": np.broadcast_to(np.arange(300.0), (200, 300)),
        "no dimension": np.array(2.5),
        "nothing in a dimension": np.zeros((3, 0, 5)),
        "structured, small": np.ones(3, POINT),
        "structured": np.ones(3000, POINT),
        "records": np.ones(3000, POINT).view(np.recarray),
        "objects": np.array([None, "text", [1, 2], {3}, np.arange(3)], dtype=object),
        "matrix": np.matrix(large),
        "masked": np.ma.masked_less(large, 30000),
        "scalar": np.float32(1.5),
        "two of one": [large, large],
        "part and whole": (large[:100], large),
        "read-only": read_only(large),
        "read-only matrix": read_only(np.matrix(large)),
        "read-only, small": read_only(large[:2].copy()),
    }
    return found


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def described(value):
    """What can be seen of a value, in one line."""
    if isinstance(value, list | tuple):
        is_same = any(one is value[0] for one in value[1:])
        return [type(value).__name__, is_same, *map(described, value)]
    if not isinstance(value, np.ndarray):
        return [type(value).__name__, repr(value)]
    # Of more than two axes, what is out of band keeps their order in memory (numpy 2, protocol 5
    # of pickle); "spawn" pickles with protocol 4, which does not.
    keeps_order = value.ndim <= 2
    flags = [name for name in "CFWA" if value.flags[name] and (keeps_order or name in "WA")]
    content = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
    digest = hashlib.sha1(content.encode() if isinstance(content, str) else content).hexdigest()
    mask = described(value.mask) if isinstance(value, np.ma.MaskedArray) else ""
    return [
        type(value).__name__,
        value.dtype.descr,
        value.shape,
        value.strides if keeps_order else None,
        flags,
        digest,
        mask,
    ]


def changed(value):
    """Write into what was received, and return it, or a copy if nothing can be written to it."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, np.ndarray) and one.size:
            one[(0,) * one.ndim] = one[(-1,) * one.ndim]
    return value


def seen(value):
    return described(value), changed(value)


def answer(source, target):
    while (value := source.get()) is not None:
        target.put(seen(value))


def answer_and_count(source, target):
    while (value := source.get()) is not None:
        target.put(seen(value))
        source.task_done()
    source.task_done()


def answer_pipe(connection):
    while (value := connection.recv()) is not None:
        connection.send(seen(value))


def answer_arguments(target, values, **named):
    target.put([seen(value) for value in [*values, *named.values()]])


def through_queues(context, source, target, answer=answer):
    child = context.Process(target=answer, args=(source, target))
    child.start()
    for value in arrays().values():
        source.put(value)
        yield target.get()
    source.put(None)
    if answer is answer_and_count:
        source.join()
    child.join()


def through_pipe(context):
    here, there = context.Pipe()
    child = context.Process(target=answer_pipe, args=(there,))
    child.start()
    there.close()
    for value in arrays().values():
        here.send(value)
        yield here.recv()
    here.send(None)
    child.join()


def through_arguments(context):
    target = context.Queue()
    values = list(arrays().values())
    named = {f"value_{number}": value for number, value in enumerate(values[20:])}
    child = context.Process(target=answer_arguments, args=(target, values[:20]), kwargs=named)
    child.start()
    yield from target.get()
    child.join()


def through_pool(context):
    values = list(arrays().values())
    with context.Pool(2) as pool:
        yield from pool.map(seen, values)
        yield from pool.imap(seen, values)
        yield from pool.starmap(seen, [(value,) for value in values])
        yield from (pool.apply(seen, (value,)) for value in values)


def through_manager(context):
    with context.Manager() as manager:
        shared, queue = manager.dict(), manager.Queue()
        for name, value in arrays().items():
            shared[name] = value
            queue.put(value)
            yield seen(shared[name])
            yield seen(queue.get())


def through_executor(context):
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        yield from executor.map(seen, arrays().values())


def main(context):
    carriers = {
        "Queue": through_queues(context, context.Queue(), context.Queue()),
        "SimpleQueue": through_queues(context, context.SimpleQueue(), context.SimpleQueue()),
        "JoinableQueue": through_queues(
            context, context.JoinableQueue(), context.JoinableQueue(), answer_and_count
        ),
        "Pipe": through_pipe(context),
        "arguments": through_arguments(context),
        "Pool": through_pool(context),
        "Manager": through_manager(context),
        "Executor": through_executor(context),
    }
    names = list(arrays())
    for carrier, answers in carriers.items():
        for number, (in_child, back) in enumerate(answers):
            name = names[number % len(names)]
            print(carrier, name, in_child, described(back), described(changed(back)), sep=" | ")


if __name__ == "__main__":
    main(multiprocessing.get_context(*sys.argv[1:]))
