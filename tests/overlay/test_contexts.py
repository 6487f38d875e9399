"""Start method "dragon" in multiprocessing's contexts, with and without `import dragon`."""

import multiprocessing
from collections.abc import Callable

import pytest
from overlay_support import Outcome

Run = Callable[..., Outcome]


def output(done: Outcome) -> str:
    """What a program printed, if it ended well and printed no error."""
    assert (done.status, done.stderr) == (0, "")
    return done.stdout.strip()


# ---- registration ----


@pytest.mark.parametrize("options", [[], ["-I"], ["-E", "-s"], ["-S"], ["-O"]])
def test_dragon_is_a_start_method_without_any_import(run: Run, options: list[str]) -> None:
    text = """
import multiprocessing, sys
context = multiprocessing.get_context("dragon")
print(context.get_start_method(), "dragon" in sys.modules)
"""
    assert output(run(text, options=options)) == "dragon False"


def test_dragon_is_a_start_method_in_children_of_every_method(run: Run) -> None:
    text = """
import multiprocessing, sys
def child(q):
    q.put(multiprocessing.get_context("dragon").get_start_method())
if __name__ == "__main__":
    for method in ["dragon", "spawn", "fork", "forkserver"]:
        context = multiprocessing.get_context(method)
        q = context.SimpleQueue()
        p = context.Process(target=child, args=(q,))
        p.start()
        print(q.get())
        p.join()
"""
    assert output(run(text)).split() == ["dragon"] * 4


def test_processes_and_queues_need_no_import_of_dragon_anywhere(run: Run) -> None:
    text = """
import multiprocessing, sys
def child(q, q2, q3):
    q.put("dragon" in sys.modules)
def square(x):
    return x * x
if __name__ == "__main__":
    q = multiprocessing.Queue()
    others = multiprocessing.JoinableQueue(), multiprocessing.Lock()
    p = multiprocessing.Process(target=child, args=(q, *others))
    p.start()
    print(q.get())
    p.join()
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, [1, 2, 3]))
    print("dragon" in sys.modules, type(q).__module__)
"""
    done = run(text, options=["--start-method", "dragon"])
    assert output(done) == "False\n[1, 4, 9]\nFalse dragon_overlay.queues"


def test_all_start_methods_are_the_stock_ones_without_the_import(run: Run) -> None:
    text = "import multiprocessing; print(*multiprocessing.get_all_start_methods())"
    assert output(run(text)) == "fork spawn forkserver"


def test_all_start_methods_begin_with_dragon_after_the_import(run: Run) -> None:
    text = "import dragon, multiprocessing; print(*multiprocessing.get_all_start_methods())"
    assert output(run(text)) == "dragon fork spawn forkserver"


def test_the_import_may_come_after_multiprocessing(run: Run) -> None:
    text = """
import multiprocessing
import dragon
multiprocessing.set_start_method("dragon")
print(multiprocessing.get_all_start_methods()[0], multiprocessing.get_start_method())
"""
    assert output(run(text)) == "dragon dragon"


def test_a_module_of_the_program_named_dragon_is_not_taken(run: Run, tmp_path: object) -> None:
    (tmp_path / "dragon.py").write_text("raise SystemExit('wrong')")  # type: ignore[operator]
    assert output(run("import dragon; print(dragon.__file__)")) == "<dragon>/dragon/__init__.py"


# ---- the default method ----

WAYS = [
    {"options": ["--start-method", "dragon"]},
    {"options": ["--start-method=dragon"]},
    {"env": {"DRAGON_START_METHOD": "dragon"}},
]


@pytest.mark.parametrize("way", WAYS)
def test_a_default_method_is_no_choice_of_the_program(run: Run, way: dict[str, object]) -> None:
    text = """
import multiprocessing
print(multiprocessing.get_start_method(allow_none=True))
print(type(multiprocessing.Queue()).__module__)
print(multiprocessing.get_start_method())
"""
    assert output(run(text, **way)).split() == ["None", "dragon_overlay.queues", "dragon"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("choice", ["spawn", "fork", "forkserver", "dragon"])
def test_the_programs_own_choice_wins(run: Run, way: dict[str, object], choice: str) -> None:
    text = f"""
import multiprocessing
multiprocessing.set_start_method("{choice}")
print(multiprocessing.get_start_method(), type(multiprocessing.Queue()).__module__)
"""
    module = "dragon_overlay.queues" if choice == "dragon" else "multiprocessing.queues"
    assert output(run(text, **way)) == f"{choice} {module}"


@pytest.mark.parametrize("way", WAYS)
def test_a_default_method_holds_in_children_and_theirs(run: Run, way: dict[str, object]) -> None:
    text = """
import multiprocessing as m
def child(depth, q):
    q.put((m.get_start_method(), type(m.Queue()).__module__, type(m.Lock()).__module__))
    if depth:
        p = m.Process(target=child, args=(depth - 1, q))
        p.start()
        p.join()
if __name__ == "__main__":
    assert m.get_start_method(allow_none=True) is None
    q = m.Queue()
    child(2, q)
    for _ in range(3):
        print(*q.get())
"""
    line = "dragon dragon_overlay.queues dragon_overlay.synchronize"
    assert output(run(text, **way)).splitlines() == [line] * 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("choice", ["spawn", "forkserver", "fork"])
def test_the_programs_own_choice_wins_in_children_too(
    run: Run, way: dict[str, object], choice: str
) -> None:
    text = f"""
import multiprocessing as m
def child(q):
    q.put((m.get_start_method(), type(m.Queue()).__module__))
if __name__ == "__main__":
    m.set_start_method("{choice}")
    q = m.SimpleQueue()
    p = m.Process(target=child, args=(q,))
    p.start()
    print(*q.get())
    p.join()
"""
    assert output(run(text, **way)) == f"{choice} multiprocessing.queues"


def test_without_option_the_default_is_the_stock_one(run: Run) -> None:
    assert output(run("import multiprocessing as m; print(m.get_start_method())")) == "fork"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_stock_method_may_be_the_default(run: Run, method: str) -> None:
    done = run(
        "import multiprocessing as m; print(m.get_start_method())",
        options=["--start-method", method],
    )
    assert output(done) == method


@pytest.mark.parametrize(
    "way",
    [{"options": ["--start-method", "drgon"]}, {"env": {"DRAGON_START_METHOD": "drgon"}}],
)
def test_an_unknown_default_method_is_named_with_those_that_exist(
    run: Run, way: dict[str, object]
) -> None:
    done = run("print('started')", **way)
    assert done.status == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    for word in ["drgon", "dragon", "fork", "forkserver", "spawn"]:
        assert word in done.stderr


def test_an_empty_variable_is_no_default(run: Run) -> None:
    text = "import multiprocessing as m; print(m.get_start_method())"
    assert output(run(text, env={"DRAGON_START_METHOD": ""})) == "fork"


def test_the_option_outranks_the_variable(run: Run) -> None:
    text = "import multiprocessing as m; print(m.get_start_method())"
    done = run(text, options=["--start-method", "spawn"], env={"DRAGON_START_METHOD": "dragon"})
    assert output(done) == "spawn"


@pytest.mark.parametrize("method", ["dragon", "spawn", "fork", "forkserver"])
def test_a_child_has_the_method_it_was_started_with(run: Run, method: str) -> None:
    text = f"""
import multiprocessing as m
def child(q):
    q.put(m.get_start_method())
if __name__ == "__main__":
    m.set_start_method("dragon" if "{method}" == "spawn" else "spawn")
    context = m.get_context("{method}")
    q = context.SimpleQueue()
    p = context.Process(target=child, args=(q,))
    p.start()
    print(q.get())
    p.join()
"""
    assert output(run(text)) == method


# ---- changing it ----

CHANGE = """
import multiprocessing as m
m.set_start_method("dragon")
try:
    m.set_start_method("spawn")
    print(m.get_start_method())
except RuntimeError as error:
    print(error)
"""


def test_leaving_dragon_needs_force_without_the_import(run: Run) -> None:
    assert output(run(CHANGE)) == "context has already been set"


def test_leaving_dragon_needs_no_force_after_the_import(run: Run) -> None:
    assert output(run("import dragon\n" + CHANGE)) == "spawn"


def test_leaving_a_stock_method_needs_force_even_after_the_import(run: Run) -> None:
    text = """
import dragon
import multiprocessing as m
m.set_start_method("spawn")
try:
    m.set_start_method("dragon")
except RuntimeError as error:
    print(error)
m.set_start_method("dragon", force=True)
print(m.get_start_method())
"""
    assert output(run(text)) == "context has already been set\ndragon"


def test_choosing_dragon_twice_needs_force(run: Run) -> None:
    text = """
import dragon
import multiprocessing as m
m.set_start_method("dragon")
m.set_start_method("dragon")
"""
    assert "context has already been set" in run(text).stderr


def test_an_unknown_method_is_refused(run: Run) -> None:
    text = """
import dragon
import multiprocessing as m
m.set_start_method("dragon")
for name in ["nonsense", ""]:
    try:
        m.set_start_method(name)
    except ValueError as error:
        print(error)
print(m.get_start_method())
"""
    done = run(text)
    assert done.stdout == (
        "cannot find context for 'nonsense'\ncannot find context for ''\ndragon\n"
    )


# ---- what contexts make ----

MODULES = {
    "Barrier": ("synchronize", (2,)),
    "BoundedSemaphore": ("synchronize", ()),
    "Condition": ("synchronize", ()),
    "Event": ("synchronize", ()),
    "JoinableQueue": ("queues", ()),
    "Lock": ("synchronize", ()),
    "Queue": ("queues", ()),
    "RLock": ("synchronize", ()),
    "Semaphore": ("synchronize", ()),
    "SimpleQueue": ("queues", ()),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_stock_contexts_make_stock_objects(name: str, method: str) -> None:
    module, arguments = MODULES[name]
    made = getattr(multiprocessing.get_context(method), name)(*arguments)
    assert type(made).__module__ == f"multiprocessing.{module}"


@pytest.mark.parametrize("name", MODULES)
def test_the_dragon_context_makes_subclasses_of_the_stock_classes(name: str) -> None:
    module, arguments = MODULES[name]
    made = getattr(multiprocessing.get_context("dragon"), name)(*arguments)
    assert type(made).__module__ == f"dragon_overlay.{module}"
    assert type(made).__name__ == name
    stock = getattr(__import__(f"multiprocessing.{module}", fromlist=[name]), name)
    assert isinstance(made, stock)


def test_functions_of_multiprocessing_follow_the_current_method(run: Run) -> None:
    text = f"""
import multiprocessing as m
from multiprocessing import Queue, Lock
for method in ["dragon", "spawn", "dragon"]:
    m.set_start_method(method, force=True)
    made = [getattr(m, name)(*arguments) for name, (_, arguments) in {MODULES}.items()]
    print({{type(one).__module__.partition(".")[0] for one in [*made, Queue(), Lock()]}})
"""
    assert output(run(text)).split("\n") == [
        "{'dragon_overlay'}",
        "{'multiprocessing'}",
        "{'dragon_overlay'}",
    ]


def test_pools_of_multiprocessing_follow_the_current_method(run: Run) -> None:
    text = """
import multiprocessing as m
if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        m.set_start_method(method, force=True)
        with m.Pool(1) as pool:
            print(type(pool).__module__, type(pool).__name__)
"""
    assert output(run(text)).split("\n") == [
        "dragon_overlay.pool.dragon_pool DragonPool",
        "multiprocessing.pool Pool",
    ]


@pytest.mark.parametrize("name", [*MODULES, "Pool"])
def test_functions_keep_the_signature_and_documentation_of_the_stock_ones(name: str) -> None:
    import inspect

    stock = getattr(multiprocessing.context.BaseContext, name)
    ours = getattr(multiprocessing, name)
    expected = list(inspect.signature(stock).parameters)[1:]
    assert list(inspect.signature(ours).parameters) in (expected, ["self", *expected])
    assert ours.__doc__ == stock.__doc__
    dragons = getattr(type(multiprocessing.get_context("dragon")), name)
    parameters = list(inspect.signature(dragons).parameters)[1:]
    # Keywords that only ours know.
    assert [p for p in parameters if p not in ("max_worker_rss", "robust")] == expected


def test_a_dragon_queue_cannot_be_given_to_a_spawned_process() -> None:
    q = multiprocessing.get_context("dragon").Queue()
    process = multiprocessing.get_context("spawn").Process(target=print, args=(q,))
    with pytest.raises(RuntimeError, match=r"dragon.*spawn"):
        process.start()


def test_dragons_context_is_one_object_and_knows_its_name() -> None:
    context = multiprocessing.get_context("dragon")
    assert multiprocessing.get_context("dragon") is context
    assert context.get_start_method() == "dragon"
    assert context.get_context("spawn").get_start_method() == "spawn"
    assert context.get_context() is context
    with pytest.raises(ValueError, match="cannot set start method of concrete context"):
        context.set_start_method("spawn")


def test_a_program_that_reloads_multiprocessing_has_the_method_still(run: Run) -> None:
    text = """
import importlib, multiprocessing, sys
for name in [n for n in sys.modules if n.startswith("multiprocessing")]:
    del sys.modules[name]
import multiprocessing
print(multiprocessing.get_context("dragon").get_start_method())
"""
    assert output(run(text)) == "dragon"


def test_values_arrays_pipes_and_managers_work_under_dragon(run: Run) -> None:
    text = """
import multiprocessing as m
def child(value, array, end, shared):
    with value.get_lock():
        value.value += 1
    array[1] = 2.5
    end.send("piped")
    shared["key"] = 1
if __name__ == "__main__":
    m.set_start_method("dragon")
    value, array = m.Value("i", 1), m.Array("d", 3)
    ours, theirs = m.Pipe()
    with m.Manager() as manager:
        shared = manager.dict()
        p = m.Process(target=child, args=(value, array, theirs, shared))
        p.start()
        p.join()
        print(p.exitcode, value.value, array[:], ours.recv(), dict(shared))
"""
    assert output(run(text)) == "0 2 [0.0, 2.5, 0.0] piped {'key': 1}"
