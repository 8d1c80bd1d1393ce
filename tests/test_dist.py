import os
import pickle
import signal
import time

import pytest
import torch
from processes import free_port, run_ranks, start

from styleforge import dist

CPU = torch.device("cpu")


def test_one_process_is_rank_0_of_1_and_reduces_nothing():
    x = torch.tensor([1.0, 2.0])
    with dist.Group(CPU):
        assert (dist.rank(), dist.world_size()) == (0, 1)
        dist.all_reduce_mean([x])
        assert dist.any_rank(True)
        assert not dist.any_rank(False)
    assert x.tolist() == [1, 2]


def means():
    """Ranks hold different numbers, of several shapes and types, also not contiguous ones."""
    with dist.Group(CPU):
        r = dist.rank()
        tensors = [
            torch.tensor(float(r)),
            torch.arange(6.0).reshape(2, 3).t() * (r + 1),
            torch.tensor([1.0 + r], dtype=torch.float64),
            torch.full((2, 2, 2, 2), 3.0 * r).to(memory_format=torch.channels_last),
            torch.zeros(0),
        ]
        kept = list(tensors)
        dist.all_reduce_mean(tensor for tensor in tensors)
        assert all(tensor is other for tensor, other in zip(tensors, kept, strict=True))
        flags = [dist.any_rank(flag) for flag in (r == 1, False, True)]
        return dist.world_size(), r, [tensor.tolist() for tensor in tensors], flags


def test_every_rank_gets_the_means_in_place():
    for rank, (world_size, r, tensors, flags) in enumerate(run_ranks(means, 3)):
        assert (world_size, r) == (3, rank)
        assert tensors[0] == 1
        assert tensors[1] == (torch.arange(6.0).reshape(2, 3).t() * 2).tolist()
        assert tensors[2:] == [[2], torch.full((2, 2, 2, 2), 3.0).tolist(), []]
        assert flags == [True, False, True]


class Sums(torch.nn.Module):
    """Parameters of several shapes, one of them not used."""

    def __init__(self):
        super().__init__()
        shapes = [(2, 3), (4,), (), (5, 1), (3, 2)]
        self.all = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(shape)) for shape in shapes])

    def forward(self, x):
        """Nested, such that the gradient of the last parameter is there first."""
        for i, parameter in enumerate(self.all):
            if i != 2:
                x = x * parameter.sum()
        return x


def gradients(bucket_bytes, parts):
    """Ranks see different x, in parts; also what was sent when each gradient came."""
    with dist.Group(CPU):
        network, x = Sums(), torch.arange(1.0, 1 + parts) * (1 + dist.rank())
        sent, events, all_reduce = [], [], torch.distributed.all_reduce
        torch.distributed.all_reduce = lambda *args, **keywords: sent.append(1) or all_reduce(*args, **keywords)
        for parameter in network.all:
            parameter.register_post_accumulate_grad_hook(lambda _: events.append(len(sent)))
        for value in x[:-1]:
            network(value).backward()
        assert not sent
        with dist.averaged_gradients(network.parameters(), bucket_bytes):
            network(x[-1]).backward()
        return [None if p.grad is None else p.grad.tolist() for p in network.all], events[-4:], len(sent)


@pytest.mark.parametrize(("bucket_bytes", "num_buckets"), [(1, 4), (20, 4), (10**6, 1)])
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_are_means_over_ranks_and_sent_in_buckets(bucket_bytes, num_buckets, parts):
    network = Sums()
    network(torch.arange(1.0, 1 + parts).sum() * 1.5).backward()  # the mean of x over two ranks
    expected = [None if p.grad is None else p.grad.tolist() for p in network.all]
    for result, _, sent in run_ranks(gradients, 2, bucket_bytes, parts):
        assert result == expected
        assert expected[2] is None
        assert sent == num_buckets


def test_gradients_are_sent_while_the_backward_pass_goes_on():
    for _, events, _ in run_ranks(gradients, 2, 1, 1):
        # The parameter's own hook comes before: nothing sent yet, then one bucket, then two; the third waits for a
        # gradient that never comes, until the end of the block.
        assert events == [0, 1, 2, 2]


def two_passes():
    with dist.Group(CPU):
        network = Sums()
        with dist.averaged_gradients(network.parameters()):
            for _ in range(2):
                network(torch.tensor(1.0)).backward()


def test_a_second_backward_pass_in_the_block_is_a_programmers_error():
    assert all("second backward pass" in str(result) for result in run_ranks(two_passes, 2))


def fails_in_backward():
    with dist.Group(CPU):
        network = Sums()
        dist.all_reduce_mean([torch.zeros(1)])  # both are in the group before one leaves it
        with dist.averaged_gradients(network.parameters()):
            raise ValueError("of my own")


def test_an_error_in_the_backward_pass_is_not_waited_for():
    assert [str(result) for result in run_ranks(fails_in_backward, 2)] == ["of my own"] * 2


def test_gradients_of_one_process_are_left_alone():
    network, plain = Sums(), Sums()
    with dist.averaged_gradients(network.parameters()):
        network(torch.tensor(2.0)).backward()
    plain(torch.tensor(2.0)).backward()
    assert all(str(p.grad) == str(q.grad) for p, q in zip(network.all, plain.all, strict=True))


def group_and_then_alone():
    with dist.Group(CPU):
        inside = dist.world_size()
    x = torch.tensor(1.0 + dist.rank())
    dist.all_reduce_mean([x])
    return inside, dist.world_size(), x.item()


def test_a_group_ends_with_its_block():
    assert run_ranks(group_and_then_alone, 2) == [(2, 1, 1.0)] * 2


def killed():
    with dist.Group(CPU):
        dist.all_reduce_mean([torch.zeros(3)])
        if dist.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce_mean([torch.zeros(3)])


def test_a_killed_rank_is_noticed_at_once_and_said():
    lost, nothing = run_ranks(killed, 2, timeout=60)
    assert nothing is None
    assert isinstance(lost, dist.LostRankError)
    assert isinstance(lost, OSError)  # which the command line shows as one sentence
    assert "rank 0 of 2: another process died" in str(lost)
    assert "\n" not in str(lost)


def silent():
    with dist.Group(CPU, timeout_sec=1):
        dist.all_reduce_mean([torch.zeros(3)])
        if dist.rank() == 1:
            time.sleep(3)
            return
        dist.all_reduce_mean([torch.zeros(3)])


def test_a_rank_that_does_not_answer_is_given_up_after_the_time_limit():
    lost, _ = run_ranks(silent, 2)
    assert isinstance(lost, dist.LostRankError)
    assert "did not answer within its time limit" in str(lost)


def work_of_which_one_has_more(seconds, error):
    """Rank 1 works for longer than other collectives wait, and may fail."""
    with dist.Group(CPU, timeout_sec=1):
        with dist.together():
            if dist.rank() == 1:
                time.sleep(seconds)
                if error is not None:
                    raise error
        return dist.any_rank(dist.rank() == 1)


def test_ranks_wait_long_for_one_that_has_more_to_do():
    assert run_ranks(work_of_which_one_has_more, 2, 2, None) == [True, True]


@pytest.mark.parametrize(
    "error", [ValueError("bad ψ\n" * 500), FileNotFoundError(2, "gone", "a.zip"), MemoryError("m")]
)
def test_an_error_of_one_rank_is_that_of_all(error):
    first, second = run_ranks(work_of_which_one_has_more, 2, 0, error)
    assert str(second) == str(error) and str(first) == str(error)[:600]
    assert isinstance(first, ValueError if isinstance(error, ValueError) else OSError | MemoryError)


def test_processes_end_well_after_an_error_that_all_have_shared():
    port = free_port()
    ranks = [
        start(work_of_which_one_has_more, 0, ValueError("bad"), rank=rank, world_size=2, port=port) for rank in range(2)
    ]
    for process, receiver in ranks:
        assert receiver.poll(60) and isinstance(pickle.loads(receiver.recv_bytes()), ValueError)
        process.join()
        assert process.exitcode == 0


def dies_together():
    with dist.Group(CPU), dist.together():
        if dist.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_rank_that_dies_at_work_is_noticed_at_once():
    lost, nothing = run_ranks(dies_together, 2, timeout=60)
    assert nothing is None and isinstance(lost, dist.LostRankError)


def test_alone_together_changes_nothing():
    with pytest.raises(KeyError), dist.together():
        raise KeyError
    with pytest.raises(ValueError, match="mine"), dist.together():
        raise ValueError("mine")


def alone():
    with dist.Group(CPU, timeout_sec=1):
        pass


def test_processes_that_do_not_find_each_other_are_said():
    process, receiver = start(alone, rank=1, world_size=2, port=free_port())
    assert receiver.poll(60)
    lost = pickle.loads(receiver.recv_bytes())
    process.join()
    assert isinstance(lost, dist.LostRankError)
    assert "did not find each other" in str(lost) and "torchrun" in str(lost)
    assert "\n" not in str(lost)


def test_the_processor_is_picked_by_its_name():
    assert dist.pick_device("cpu") == CPU
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert dist.pick_device() == CPU


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "gpu"])
def test_a_device_that_is_not_here_is_said(name, refuses):
    with refuses("device", repr(name), "--device"):
        dist.pick_device(name)


def test_every_local_rank_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    picked = []
    for rank in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        picked.append(dist.pick_device("auto"))
    assert [device.index for device in picked] == [0, 1, 0]
