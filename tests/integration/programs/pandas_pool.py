"""pandas: frames of many kinds to the workers of a Pool, and back; split, apply, combine."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd


def sales():
    random = np.random.default_rng(0)
    n = 40_000
    return pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=n, freq="min"),
            "shop": pd.Categorical(random.choice(["north", "south", "east"], n)),
            "amount": random.gamma(2.0, 10.0, n).round(2),
            "items": random.integers(1, 9, n),
            "note": random.choice(["", "gift", None], n),
            "paid": pd.array(random.choice([True, False, None], n), dtype="boolean"),
        }
    ).set_index("day", drop=False)


def summed(frame):
    return frame.groupby("shop", observed=True)[["amount", "items"]].sum()


def marked(frame):
    """Write into what was received."""
    frame["amount"] *= 2
    frame.iloc[0, frame.columns.get_loc("items")] = 100
    return frame


def described(frame):
    digest = pd.util.hash_pandas_object(frame.astype({"shop": str, "note": str})).sum()
    return frame.shape, dict(frame.dtypes.astype(str)), str(frame.index.freq), int(digest)


def main():
    frame = sales()
    parts = [part for _, part in frame.groupby(frame["day"].dt.day)]
    with multiprocessing.Pool(2) as pool:
        print(
            "parts", len(parts), pd.concat(pool.map(summed, parts)).groupby("shop").sum().round(2)
        )
        print("frame", pool.apply(described, (frame,)))
        print("changed", described(pool.apply(marked, (frame,))), described(frame))
        print("series", pool.map(pd.Series.describe, [frame["amount"], frame["items"]]))
        print("index", pool.apply(type, (frame.index,)), pool.apply(len, (frame.index,)))
        print("nested", [described(part) for part in pool.map(marked, parts[:3])])
        try:
            pool.apply(pd.DataFrame.drop, (frame, ["nothing"]))
        except KeyError as error:
            print("error", error)
    queue, back = multiprocessing.Queue(), multiprocessing.SimpleQueue()
    child = multiprocessing.Process(target=send_back, args=(queue, back))
    child.start()
    queue.put(frame)
    print("queue", described(back.get()), child.join(), child.exitcode)
    with ProcessPoolExecutor(2) as executor:
        print("executor", described(pd.concat(executor.map(marked, parts))))


def send_back(queue, back):
    back.put(marked(queue.get()))


if __name__ == "__main__":
    if sys.argv[1:]:
        multiprocessing.set_start_method(sys.argv[1])
    main()
