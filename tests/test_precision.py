import subprocess
import sys

import pytest
import torch

from styleforge.precision import computes_bf16, exact_float32

WAYS = {
    "untouched": "",
    "old": "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True",
    "high": "torch.set_float32_matmul_precision('high')",
    "new": "torch.backends.cudnn.conv.fp32_precision = 'ieee'; torch.backends.cuda.matmul.fp32_precision = 'tf32'",
}
PROGRAM = """
import torch
from styleforge.precision import computes_bf16, exact_float32

def state():
    found = []
    for read in (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda: torch.backends.cudnn.conv.fp32_precision,
        lambda: torch.backends.cudnn.rnn.fp32_precision,
        torch.get_float32_matmul_precision,
        lambda: torch.backends.cuda.matmul.fp32_precision,
    ):
        try:
            found.append(read())
        except (RuntimeError, AttributeError):
            found.append("refused")
    return found

{way}
before = state()
with exact_float32():
    assert "tf32" not in state() and True not in state() and "high" not in state(), state()
    readable = state()
assert state() == before, (before, state())
assert ("refused" in readable) == ("refused" in before), readable
"""


@pytest.mark.parametrize("way", WAYS)
def test_float32_is_exact_inside_and_as_before_outside(way):
    if way == "new" and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("PyTorch before 2.9 has one way only")
    program = PROGRAM.format(way=WAYS[way])  # in a process of its own, since the ways cannot be taken back
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_functions_may_be_decorated():
    @exact_float32()
    def allowed():
        return torch.backends.cudnn.allow_tf32

    before = torch.backends.cudnn.allow_tf32
    assert not allowed() and torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_cpus_say_whether_they_compute_bf16(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_bf16(torch.device("cpu")) == expected
    assert not computes_bf16(torch.device("mps"))


def test_a_pytorch_that_does_not_tell_computes_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not computes_bf16(torch.device("cpu"))
