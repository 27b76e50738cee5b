"""TransNormer in PyTorch at double precision: a second opinion on every gradient of lasp-rank.

Written from the model's published equations alone, with the attention as one quadratic form over
global positions and all gradients by autograd: no block, no state, no hand-written derivative is
shared with the engine.

    transnormer_torch.py DUMP_FOLDER SPEC.json

compares the step that `lasp-worker --dump_directory` wrote with this model and prints one line a
tensor; it exits 1 where a relative RMS exceeds 1e-5.
"""
import json
import math
import os
import sys

import torch

EPSILON = 1e-6
TOLERANCE = 1e-5


def srms_norm(x):
    """y = x / sqrt(mean(x^2) + epsilon): no weight, no bias."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + EPSILON)


def alibi_slopes(heads):
    def power_of_two(n):
        start = 2.0 ** (-(2.0 ** -(math.log2(n) - 3)))
        return [start ** (i + 1) for i in range(n)]
    closest = 2 ** int(math.log2(heads))
    slopes = power_of_two(closest)
    if closest != heads:
        slopes += power_of_two(2 * closest)[0::2][:heads - closest]
    return torch.tensor(slopes, dtype=torch.float64)


def layer_slopes(heads, layer, layers):
    depth = layer / (layers - 1) if layers > 1 else 0.0
    return alibi_slopes(heads) * (1 - depth + 1e-5)


def fixed_theta(heads, head_size):
    index = torch.arange(heads * head_size, dtype=torch.float64)
    return (10000.0 ** (-2 * index / (heads * head_size))).reshape(heads, head_size)


def rotate(x, theta):
    """LRPE at global positions: [batch, heads, tokens, d] becomes [..., 2 d]."""
    position = torch.arange(x.shape[2], dtype=torch.float64)
    angle = theta[:, None, :] * position[None, :, None]
    return torch.cat([x * torch.cos(angle), x * torch.sin(angle)], dim=-1)


def linear_attention(q, k, v, slopes):
    """o_n = sum_{m <= n} exp(-slope (n - m)) (q_n . k_m) v_m, without scale or denominator."""
    position = torch.arange(q.shape[2], dtype=torch.float64)
    distance = position[:, None] - position[None, :]
    decay = torch.where(distance >= 0, torch.exp(-slopes[:, None, None] * distance.clamp(min=0)),
                        torch.zeros((), dtype=torch.float64))
    return (q @ k.transpose(-1, -2) * decay) @ v


def gated_linear_attention(x, weights, prefix, heads, slopes, theta):
    batch, tokens, hidden = x.shape
    q, k, v, u = (x @ weights[prefix + "qkvu_proj.weight"].T).chunk(4, dim=-1)
    q, k, v = (t.reshape(batch, tokens, heads, hidden // heads).transpose(1, 2) for t in (q, k, v))
    q, k = torch.nn.functional.silu(q), torch.nn.functional.silu(k)
    if theta is not None:
        q, k = rotate(q, theta), rotate(k, theta)
    o = linear_attention(q, k, v, slopes).transpose(1, 2).reshape(batch, tokens, hidden)
    return (u * srms_norm(o)) @ weights[prefix + "out_proj.weight"].T


def sglu(x, weights, prefix):
    return ((x @ weights[prefix + "l1.weight"].T) * (x @ weights[prefix + "l2.weight"].T)) @ weights[prefix + "l3.weight"].T


def loss_of(weights, tokens, labels, model):
    """Mean cross entropy over all labels, in nats."""
    embedding = weights["model.embed_tokens.weight"]
    heads, layers = model["heads"], model["layers"]
    x = math.sqrt(model["hidden_size"]) * embedding[tokens]
    for layer in range(layers):
        mixer = f"model.layers.{layer}.token_mixer."
        theta = None
        if layer == 0:
            theta = weights.get(mixer + "lrpe.theta")
            if theta is None:
                theta = fixed_theta(heads, model["hidden_size"] // heads)
        x = x + gated_linear_attention(srms_norm(x), weights, mixer, heads,
                                       layer_slopes(heads, layer, layers), theta)
        x = x + sglu(srms_norm(x), weights, f"model.layers.{layer}.channel_mixer.")
    logits = srms_norm(x) @ weights.get("lm_head.weight", embedding).T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


class RankDump:
    """The arrays that one rank wrote."""

    def __init__(self, folder, rank):
        with open(os.path.join(folder, f"rank-{rank}.json")) as file:
            self.index = json.load(file)
        with open(os.path.join(folder, f"rank-{rank}.bin"), "rb") as file:
            data = file.read()
        types = {"float32": torch.float32, "float64": torch.float64, "int32": torch.int32}
        self.arrays = {}
        for array in self.index["arrays"]:
            count = math.prod(array["shape"])
            values = torch.frombuffer(bytearray(data), dtype=types[array["dtype"]], count=count,
                                      offset=array["offset"])
            wide = torch.int64 if array["dtype"] == "int32" else torch.float64
            self.arrays[array["name"]] = values.reshape(array["shape"]).to(wide)

    def named(self, prefix):
        return {name[len(prefix):]: values for name, values in self.arrays.items() if name.startswith(prefix)}


def read_dump(folder):
    """All ranks, in order, and the global batch put together from their slices."""
    first = RankDump(folder, 0)
    sp, dp = first.index["sp"], first.index["dp"]
    ranks = [first] + [RankDump(folder, rank) for rank in range(1, sp * dp)]

    def whole(name):
        rows = [torch.cat([ranks[d * sp + s].arrays[name] for s in range(sp)], dim=1) for d in range(dp)]
        return torch.cat(rows, dim=0)
    return ranks, whole("tokens"), whole("labels")


def relative_rms(value, reference):
    scale = reference.square().mean().sqrt().item()
    error = (value - reference).square().mean().sqrt().item()
    return error / scale if scale > 0 else error


def compare(folder, model):
    """{what: relative error} of the dumped step against this model."""
    ranks, tokens, labels = read_dump(folder)
    if not torch.equal(tokens[:, 1:], labels[:, :-1]):
        raise AssertionError("labels are not the tokens shifted by one")
    weights = {name: values.requires_grad_() for name, values in ranks[0].named("parameter/").items()}
    loss = loss_of(weights, tokens, labels, model)
    loss.backward()
    errors = {"loss": abs(ranks[0].index["loss"] - loss.item()) / loss.item()}
    norm = math.sqrt(sum(w.grad.square().sum().item() for w in weights.values()))
    errors["gradient norm"] = abs(ranks[0].index["gradient_norm"] - norm) / norm
    for number, rank in enumerate(ranks):
        gradients = rank.named("gradient/")
        if set(gradients) != set(weights):
            raise AssertionError(f"rank {number} has gradients of {sorted(gradients)}, not of {sorted(weights)}")
        for name, values in gradients.items():
            errors[name] = max(errors.get(name, 0), relative_rms(values, weights[name].grad))
    return errors


def main():
    folder, spec_path = sys.argv[1:]
    with open(spec_path) as file:
        job = json.load(file)
    errors = compare(folder, job.get("spec", job)["model"])
    for name, error in errors.items():
        print(f"{error:9.2e}  {name}")
    sys.exit(0 if max(errors.values()) <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
