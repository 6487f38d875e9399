"""torch's DataLoader with workers: each epoch's batches, the workers' seeds, errors, streams."""

import multiprocessing
import os
import re
import signal
import sys

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


class Squares(Dataset):
    def __init__(self, n):
        self.values = torch.arange(float(n))

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        image = torch.full((3, 64, 64), float(index))
        return {"index": index, "square": self.values[index] ** 2, "image": image}


class Noise(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.rand(2)


class Stream(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        yield from range(worker.id, 10, worker.num_workers)


class Broken(Squares):
    def __getitem__(self, index):
        raise ValueError(f"there is no {index}")


class Deadly(Squares):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def initialised(worker_id):
    torch.set_num_threads(1)


def double(batch):
    return torch.tensor(batch) * 2


def batches(loader):
    return [
        {name: float(value.double().sum()) for name, value in batch.items()} for batch in loader
    ]


def main(context):
    workers = {"num_workers": 2, "multiprocessing_context": context}
    print("batches", batches(DataLoader(Squares(20), batch_size=4, **workers)))
    loader = DataLoader(
        Squares(20),
        batch_size=6,
        shuffle=True,
        generator=torch.Generator().manual_seed(1),
        persistent_workers=True,
        prefetch_factor=3,
        worker_init_fn=initialised,
        **workers,
    )
    print("two epochs", [batches(loader) for _ in range(2)])
    torch.manual_seed(5)
    print("noise of a seed", torch.cat(list(DataLoader(Noise(), batch_size=2, **workers))))
    print("stream", list(DataLoader(Stream(), batch_size=None, **workers)))
    print("collated", list(DataLoader(list(range(7)), batch_size=2, collate_fn=double, **workers)))
    try:
        batches(DataLoader(Broken(4), **workers))
    except ValueError as error:
        print("error", str(error).strip().splitlines()[-1])
    try:
        batches(DataLoader(Deadly(4), **workers))
    except RuntimeError as error:
        print("killed", re.sub("[0-9]+", "N", str(error)).split(":")[0])
    first = next(iter(DataLoader(Squares(50), batch_size=5, **workers)))  # and the rest unwanted
    first["image"].mul_(2)
    print("first", first["index"], float(first["image"].sum()))


if __name__ == "__main__":
    main(multiprocessing.get_context(sys.argv[1]) if sys.argv[1:] else None)
