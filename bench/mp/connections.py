"""Pipes, and waiting for many of them."""

from __future__ import annotations

import pickle
from typing import Any

from mp.groups import group
from mp.measure import Operation, Recorder
from mp.partner import KIB, MIB, Kind, Partner, name_of, payload, size_of, with_numpy

_SIZES: list[Kind] = [
    *(n * KIB for n in (1, 4, 16, 64, 256)),
    *(n * MIB for n in (1, 8, 16, 64)),
]
_ARRAYS: list[Kind] = [("numpy", n) for n in (64 * KIB, MIB, 8 * MIB, 16 * MIB, 64 * MIB)]


@group("pipe.lat")
def latency(context: Any, recorder: Recorder) -> None:
    """There and back."""
    mine, theirs = context.Pipe()
    partner = Partner(context, theirs=theirs)
    partner.begin("echo", "theirs", "theirs")
    kinds: list[Kind] = ["int", "dict", 0, 64, *_SIZES, ("numpy", KIB), *_ARRAYS]
    for kind in with_numpy(kinds):
        message = payload(kind)

        def there_and_back(n: int, message: Any = message) -> None:
            send, receive = mine.send, mine.recv
            for _ in range(n):
                send(message)
                receive()

        recorder.time_us(f"pipe.lat.{name_of(kind)}", there_and_back)
    mine.send(None)
    partner.join()
    partner.close()


@group("pipe.raw")
def raw_latency(context: Any, recorder: Recorder) -> None:
    """send_bytes and recv_bytes, no pickling on this side."""
    their_source, my_target = context.Pipe(duplex=False)
    my_source, their_target = context.Pipe(duplex=False)
    partner = Partner(context, source=their_source, target=their_target)
    partner.begin("echo", "source", "target")
    message = pickle.dumps(b"x" * 64, 5)  # the partner uses recv()

    def there_and_back(n: int) -> None:
        for _ in range(n):
            my_target.send_bytes(message)
            my_source.recv_bytes()

    recorder.time_us("pipe.raw.simplex.64B", there_and_back)
    my_target.send(None)
    partner.join()
    partner.close()


@group("pipe.bw")
def one_way(context: Any, recorder: Recorder) -> None:
    """Many messages in one direction."""
    their_source, target = context.Pipe(duplex=False)
    answers, their_answers = context.Pipe(duplex=False)
    partner = Partner(context, source=their_source, answers=their_answers)

    def sending(message: Any) -> Operation:
        def send(n: int) -> None:
            partner.begin("swallow", "source", n, "answers")
            for _ in range(n):
                target.send(message)
            answers.recv()
            partner.join()

        return send

    kinds: list[Kind] = [64, *_SIZES, *_ARRAYS]
    for kind in with_numpy(kinds):
        operation = sending(payload(kind))
        recorder.rate(f"pipe.bw.{name_of(kind)}", operation, "MB/s", size_of(kind) / 1e6)
    for kind in ("int", "dict"):
        recorder.rate(f"pipe.rate.{kind}", sending(payload(kind)), "1/s")
    partner.close()


@group("wait")
def wait_for_many(context: Any, recorder: Recorder) -> None:
    """One of many connections has something to say."""
    for n_connections in (1, 8, 64):
        pairs = [context.Pipe(duplex=False) for _ in range(n_connections)]
        answers, their_answers = context.Pipe(duplex=False)
        sources = {f"source{i}": pair[0] for i, pair in enumerate(pairs)}
        partner = Partner(context, answers=their_answers, **sources)
        partner.begin("wait", n_connections, "answers")
        targets = [pair[1] for pair in pairs]

        def call_and_answer(n: int, targets: Any = targets, answers: Any = answers) -> None:
            for i in range(n):
                targets[i % len(targets)].send(0)
                answers.recv()

        recorder.time_us(f"wait.lat.{n_connections}conns", call_and_answer)
        targets[0].send(None)
        partner.join()
        partner.close()
        for connection in (end for pair in pairs for end in pair):
            connection.close()
