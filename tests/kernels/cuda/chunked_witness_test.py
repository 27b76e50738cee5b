#!/usr/bin/env python3
"""Our linear attention is at most 1.5 times as far from the fp64 recurrence as plain PyTorch is.

The witness is chunked linear attention as it is usually written in PyTorch: bf16 operands, sums and the
state in fp32, gradients by autograd. Both get the same inputs, of linear_attention_witness; errors are
relative RMS, head by head, and the worst head's ratio counts. Skipped without PyTorch or a GPU; without a
GPU it fails instead where LASP_REQUIRE_GPU=1.
"""
import os
import subprocess
import tempfile
import unittest

try:
    import torch
except ImportError:
    torch = None

BIN = os.path.abspath(os.environ.get("LASP_BIN", "."))
NAME = "linear_attention_witness"
PROGRAM = next((path for path in (os.path.join(BIN, NAME), os.path.join(BIN, "..", "tests", NAME))
                if os.path.exists(path)), NAME)
CHUNK = 64


def operand(x):
    """What a product of bf16 sees of x; the sums are fp32."""
    return x.bfloat16().float()


def chunked(q, k, v, slopes):
    """o [heads, tokens, size] of q, k, v like it, which hold bf16 values in fp32."""
    tokens = q.shape[1]
    at = torch.arange(CHUNK, device=q.device)
    distance = at[:, None] - at[None, :]
    s = slopes[:, None, None]
    weights = torch.where(distance >= 0, torch.exp(-s * distance.clamp(min=0)), 0.0).float()
    state = torch.zeros(q.shape[0], q.shape[2], v.shape[2], device=q.device)
    outputs = []
    for first in range(0, tokens, CHUNK):
        length = min(CHUNK, tokens - first)
        q_c, k_c, v_c = (x[:, first:first + length] for x in (q, k, v))
        scores = operand(q_c @ k_c.mT * weights[:, :length, :length])
        seen = torch.exp(-s * (at[:length, None] + 1)).float()
        outputs.append(scores @ v_c + q_c @ operand(state) * seen)
        left = torch.exp(-s * (length - 1 - at[:length, None])).float()
        state = torch.exp(-s * length).float() * state + operand(k_c * left).mT @ v_c
    return torch.cat(outputs, 1).bfloat16()


def load(folder, name, dtype, shape):
    """A raw array, moved to [parts, heads, tokens, size] on the GPU."""
    tokens, parts, heads, size = shape
    values = torch.from_file(os.path.join(folder, name), size=tokens * parts * heads * size, dtype=dtype)
    return values.reshape(shape).permute(1, 2, 0, 3).cuda()


def errors(x, expected):
    """Of each head."""
    difference = (x.double() - expected).flatten(1).norm(dim=1)
    return difference / expected.flatten(1).norm(dim=1)


class ChunkedWitness(unittest.TestCase):
    RATIO = 1.5

    def setUp(self):
        if torch is None:
            self.skipTest("there is no PyTorch")
        if not torch.cuda.is_available():
            if os.environ.get("LASP_REQUIRE_GPU") == "1":
                self.fail("LASP_REQUIRE_GPU=1, but PyTorch finds no GPU")
            self.skipTest("PyTorch finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = False

    def compare(self, folder, tokens, size):
        printed = subprocess.run([PROGRAM, folder, str(tokens), str(size)], check=True, text=True,
                                 stdout=subprocess.PIPE).stdout
        slopes = torch.tensor([float(line) for line in printed.split()], dtype=torch.float64, device="cuda")
        heads = len(slopes)
        bf16 = torch.bfloat16
        qk = load(folder, "qk", bf16, (tokens, 2, heads, size))
        v = load(folder, "packed", bf16, (tokens, 4, heads, size))[2]
        d_o = load(folder, "output_gradient", bf16, (tokens, 1, heads, size))[0]
        inputs = [x.float().requires_grad_() for x in (qk[0], qk[1], v)]
        o = chunked(*inputs, slopes)
        o.backward(d_o)
        theirs = {"o": o.detach(), **{"d" + name: x.grad.bfloat16() for name, x in zip("qkv", inputs)}}
        gradients = load(folder, "gradients", bf16, (tokens, 4, heads, size))
        ours = {"o": load(folder, "output", bf16, (tokens, 1, heads, size))[0],
                "dq": gradients[0], "dk": gradients[1], "dv": gradients[2]}
        for name, result in ours.items():
            expected = load(folder, "expected_" + name, torch.float64, (tokens, 1, heads, size))[0]
            error, witness = errors(result, expected), errors(theirs[name], expected)
            ratio = (error / witness).max().item()
            print(f"T {tokens} d {size} {name}: ours {error.max():.2e}, PyTorch {witness.max():.2e}")
            print(f"figure: {name}_d{size}_T{tokens}_error_ratio {ratio:.3f}", flush=True)
            with self.subTest(tokens=tokens, size=size, tensor=name):
                self.assertLess(witness.max().item(), 2e-2, "the witness computes something else")
                self.assertLessEqual(ratio, self.RATIO)

    def test_errors_are_at_most_half_again_as_large(self):
        for size in (64, 96, 128):
            for tokens in (1000, 8192):
                with tempfile.TemporaryDirectory() as folder:
                    self.compare(folder, tokens, size)


if __name__ == "__main__":
    unittest.main()
