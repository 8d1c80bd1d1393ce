"""Ranks and all-reduce: one process, or many started by ``torchrun`` (NCCL on GPUs, gloo on CPUs).

With one process every function here does nothing, so that callers need not ask.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
import torch.distributed
from torch import Tensor

TIMEOUT_SEC = 600
"""A collective that waits longer for a rank fails; a rank whose process died is noticed at once."""
PATIENCE_SEC = 24 * 60 * 60
"""The same for `together`, where one rank may have hours of work that the others have not."""
BUCKET_BYTES = 16 << 20
"""Gradients of so many bytes are sent at a time: enough for a network's full rate, and early enough to be hidden."""

_ALIKE = (ValueError, OSError, MemoryError)
"""What a user can mend, and so what every rank should say."""
_MESSAGE_BYTES = 4096
_patient: Any = None
"""All ranks, over gloo, with `PATIENCE_SEC`."""
_flags: Any = None
"""All ranks, over gloo, with the usual time limit: `any_rank` must not wait for what a GPU has still to do."""
_shared: Exception | None = None
"""The last error that `together` has raised on every rank."""


def rank() -> int:
    """This process's number, from 0."""
    return torch.distributed.get_rank() if _is_running() else 0


def world_size() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if _is_running() else 1


def _is_running() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def pick_device(name: str = "auto") -> torch.device:
    """Turns a device's name into a device; ``auto`` is the rank's GPU, Apple's MPS, or the CPU.

    Raises:
        ValueError: The device does not exist here.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: got {name!r}, expected auto, cpu, cuda or mps (--device)") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: got {name!r}, which does not work here ({reason}), expected auto, cpu, cuda or mps (--device)"
        ) from error
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
    return device


class Group:
    """The processes that work together, for a ``with`` block; what ``torchrun`` has set says whether there are any.

    A process joins one group in its life: a second one would meet at the port that the first is still leaving.

    Args:
        device: Where this process computes; chooses NCCL or gloo.
        timeout_sec: Time limit of every collective in seconds.
    """

    def __init__(self, device: torch.device, timeout_sec: float = TIMEOUT_SEC) -> None:
        self.device, self.timeout_sec = device, timeout_sec

    def __enter__(self) -> Group:
        global _patient, _flags
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            try:
                torch.distributed.init_process_group(
                    "nccl" if self.device.type == "cuda" else "gloo",
                    timeout=datetime.timedelta(seconds=self.timeout_sec),
                )
                _patient = torch.distributed.new_group(backend="gloo", timeout=datetime.timedelta(seconds=PATIENCE_SEC))
                _flags = torch.distributed.new_group(
                    backend="gloo", timeout=datetime.timedelta(seconds=self.timeout_sec)
                )
            except RuntimeError as error:
                raise LostRankError(
                    f"the processes did not find each other within {self.timeout_sec:g} s "
                    f"({str(error).splitlines()[0][:200]}); start them with torchrun, let every machine reach "
                    "MASTER_ADDR and MASTER_PORT, and name the network device in GLOO_SOCKET_IFNAME if needed"
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After an error the other ranks may be gone: leaving the group then would wait for them. Not so after one that
        # all have shared; and to leave without leaving it would end in an abort.
        global _patient, _flags, _shared
        if _is_running() and (error is None or error is _shared):
            torch.distributed.destroy_process_group()
        _patient = _flags = _shared = None  # they would keep the store, and with it its port


class LostRankError(ConnectionError):
    """Another process died or did not answer in time."""


def all_reduce_mean(tensors: Iterable[Tensor]) -> None:
    """Replaces tensors by their mean over the ranks, in place, in one flat all-reduce per dtype.

    Args:
        tensors: The same number, shapes and dtypes on every rank.

    Raises:
        LostRankError: Another process died or did not answer in time.
    """
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for sent in [_Sent(group) for group in by_dtype.values()]:
        sent.receive()


class _Sent:
    """Tensors of one dtype on their way to their mean."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        self.flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _naming_the_lost():
            self.work = torch.distributed.all_reduce(self.flat, async_op=True)

    @torch.no_grad()
    def receive(self) -> None:
        """Waits for the other ranks, and replaces the tensors."""
        with _naming_the_lost():
            self.work.wait()
        self.flat /= world_size()
        for tensor, part in zip(self.tensors, self.flat.split([x.numel() for x in self.tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


@contextlib.contextmanager
def averaged_gradients(parameters: Iterable[Tensor], bucket_bytes: int = BUCKET_BYTES) -> Iterator[None]:
    """Averages gradients over the ranks, while the one backward pass in this block is still going on.

    Parameters are gathered in buckets, the last ones first, as a backward pass comes to them. A bucket is sent when all
    its gradients are there and the buckets before it are sent, and what is left at the end of the block: so every rank
    sends the same in the same order.

    Args:
        parameters: The same on every rank. Those without a gradient stay so; they must be the same, too.
        bucket_bytes: Of a bucket.

    Raises:
        LostRankError: Another process died or did not answer in time.
    """
    if world_size() == 1:
        yield
        return
    buckets = list(gradient_buckets([p for p in parameters if p.requires_grad], bucket_bytes))
    bucket_of = {id(p): i for i, bucket in enumerate(buckets) for p in bucket}
    missing = [len(bucket) for bucket in buckets]
    sent: list[_Sent | None] = []

    def send() -> None:
        gradients = [p.grad for p in buckets[len(sent)] if p.grad is not None]
        sent.append(_Sent(gradients) if gradients else None)

    def ready(parameter: Tensor) -> None:
        assert missing[bucket_of[id(parameter)]] > 0, "a second backward pass would add to what has been sent"
        missing[bucket_of[id(parameter)]] -= 1
        while len(sent) < len(buckets) and missing[len(sent)] == 0:
            send()

    hooks = [p.register_post_accumulate_grad_hook(ready) for bucket in buckets for p in bucket]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    while len(sent) < len(buckets):
        send()
    for gradients in sent:
        if gradients is not None:
            gradients.receive()


def gradient_buckets(parameters: Sequence[Tensor], size: int = BUCKET_BYTES) -> Iterator[list[Tensor]]:
    """Runs of parameters of one dtype, the last ones first, each of at most so many bytes, or one parameter."""
    bucket: list[Tensor] = []
    for tensor in reversed(parameters):
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.nbytes for t in bucket) + tensor.nbytes > size):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank; every rank gets the same answer.

    Raises:
        LostRankError: Another process died or did not answer in time.
    """
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag))
    with _naming_the_lost():
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX, group=_flags)
    return bool(value.item())


def broadcast(x: Tensor, source: int, device: torch.device) -> Tensor:
    """One rank's tensor on every rank, on the CPU.

    Args:
        x: A tensor of the same shape and dtype on every rank; what it holds matters on the source alone.
        source: The rank that it comes from.
        device: Where this process computes.

    Raises:
        LostRankError: Another process died or did not answer in time.
    """
    if world_size() == 1:
        return x
    x = x.to(device)
    with _naming_the_lost():
        torch.distributed.broadcast(x, source)
    return x.cpu()


def broadcast_object(x: Any) -> Any:
    """Rank 0's number, text, list or dict of such, as JSON would hold it, on every rank.

    Raises:
        LostRankError: Another process died or did not answer in time.
    """
    if world_size() == 1:
        return x
    device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
    text = json.dumps(x).encode() if rank() == 0 else b""
    size = int(broadcast(torch.tensor(len(text)), 0, device))
    data = torch.zeros(size, dtype=torch.uint8)
    if rank() == 0:
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return json.loads(bytes(broadcast(data, 0, device).numpy()))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that every rank goes through, and that ends alike on all: well, or with the first rank's error.

    It is for work of which ranks have different amounts, or which only one does, and which can fail on one alone:
    unlike in other collectives, ranks wait for each other for up to a day. Inside there must be no collective that
    another rank may miss. Errors of other kinds than those that users can mend end their process, as ever.

    Raises:
        ValueError: On any rank.
        OSError: On any rank.
        MemoryError: On any rank.
        LostRankError: Another process died.
    """
    global _shared
    error: Exception | None = None
    try:
        yield
    except LostRankError:
        raise
    except _ALIKE as raised:
        error = raised
    if world_size() > 1:
        error = _shared = _first_error(error)
    if error is not None:
        raise error


def _first_error(error: Exception | None) -> Exception | None:
    """This rank's error, or else that of the lowest rank that has one."""
    kind = next((i for i, kind in enumerate(_ALIKE) if isinstance(error, kind)), None)
    text = json.dumps([kind, str(error)[:600]], ensure_ascii=False).encode("utf-8", "replace")
    own = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
    own[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    all_texts = [torch.empty_like(own) for _ in range(world_size())]
    with _naming_the_lost():
        torch.distributed.all_gather(all_texts, own, group=_patient)
    for other in all_texts:
        kind, message = json.loads(bytes(other.numpy()).rstrip(b"\0"))
        if kind is not None and error is None:
            error = _ALIKE[kind](message)
    return error


@contextlib.contextmanager
def _naming_the_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            f"rank {rank()} of {world_size()}: another process died or did not answer within its time limit "
            f"({str(error).splitlines()[0][:200]}); look at the other ranks' messages, then go on with --resume"
        ) from error
