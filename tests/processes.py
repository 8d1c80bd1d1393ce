"""Other processes for the tests: quick to start, since they are forked off a server that has torch loaded."""

import contextlib
import multiprocessing
import os
import pickle
import socket

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["styleforge.training"])


def start(target, *arguments, rank=0, world_size=1, port=0):
    """Starts ``target(*arguments)`` with one thread and the environment that torchrun would set.

    Returns:
        (process, connection that receives what the target returns or raises).
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_run, args=(sender, target, arguments, rank, world_size, port))
    process.start()
    sender.close()
    return process, receiver


def _run(sender, target, arguments, rank, world_size, port):
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    try:
        result = target(*arguments)
    except Exception as error:
        result = error
    sender.send_bytes(pickle.dumps(result))  # not `send`, which would lend tensors out of this process


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_ranks(target, world_size, *arguments, timeout=60):
    """Runs ``target(*arguments)`` as every rank; returns what each gave or raised, None for one that was killed."""
    port = free_port()
    ranks = [start(target, *arguments, rank=rank, world_size=world_size, port=port) for rank in range(world_size)]
    results = []
    try:
        for _, receiver in ranks:
            result = None
            with contextlib.suppress(EOFError):  # killed
                assert receiver.poll(timeout), f"a rank gave no answer within {timeout} s"
                result = pickle.loads(receiver.recv_bytes())
            results.append(result)
    finally:
        for process, _ in ranks:
            if len(results) < world_size:
                process.kill()
            process.join()
    return results
