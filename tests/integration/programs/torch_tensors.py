"""torch tensors through queues, pipes and arguments: shared with each of torch's two strategies."""

import sys

import torch
import torch.multiprocessing as mp


def fill(tensors, queue, back):
    """Change what the parent shares, and answer with tensors of this process."""
    for tensor in tensors:
        tensor.add_(1)
    while (value := queue.get()) is not None:
        value.mul_(2)
        back.put((value.sum().item(), value.is_shared(), torch.full((3, 4), float(value[0, 0]))))
    back.put(None)


def train(model, number):
    """Hogwild: each process changes the parameters of one model."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(number)


def answer(connection):
    while (value := connection.recv()) is not None:
        connection.send(value * 3)


def matrix_sum(n):
    matrix = torch.ones(n, n)
    return float((matrix @ matrix).sum())


def share(strategy):
    torch.multiprocessing.set_sharing_strategy(strategy)
    tensors = [torch.zeros(2), torch.zeros(300, 300), torch.zeros(10)[::2]]
    queue, back = mp.Queue(), mp.SimpleQueue()
    child = mp.Process(target=fill, args=(tensors, queue, back))
    child.start()
    sent = [torch.ones(2, 2), torch.ones(500, 500)]
    answers = []
    for tensor in sent:
        queue.put(tensor)
        answers.append(back.get())
    queue.put(None)
    back.get()
    child.join()
    print(strategy, answers, [float(tensor.sum()) for tensor in [*tensors, *sent]], child.exitcode)

    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.share_memory()
    children = [mp.Process(target=train, args=(model, number)) for number in (1, 2, 3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print(
        strategy, "one model", [float(parameter.detach().sum()) for parameter in model.parameters()]
    )

    here, there = mp.Pipe()
    child = mp.Process(target=answer, args=(there,))
    child.start()
    for tensor in (torch.tensor(2.0), torch.ones(200, 200), torch.ones(4, dtype=torch.bfloat16)):
        here.send(tensor)
        received = here.recv()
        print(strategy, "pipe", received.shape, received.dtype, float(received.sum()))
    here.send(None)
    child.join()


def main():
    for strategy in ("file_descriptor", "file_system"):
        share(strategy)
    print("here", matrix_sum(1000))
    with mp.Pool(2) as pool:
        print("pool", pool.map(matrix_sum, [1000, 500, 10, 800]))
        print("tensors", [float(t.sum()) for t in pool.map(torch.ones, [3, 100_000])])
    print("spawned", mp.spawn(main_of_rank, args=(torch.ones(2, 2),), nprocs=2))


def main_of_rank(rank, tensor):
    assert tensor.shape == (2, 2) and rank in (0, 1)


if __name__ == "__main__":
    if sys.argv[1:]:
        mp.set_start_method(sys.argv[1])
    main()
