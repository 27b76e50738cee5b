"""TransNormer in PyTorch, in fp64, the plain way: the outside witness of the engine's mathematics.

Written from the model's definition alone. Attention is the masked left product over the whole
sequence, positions are global, gradients are autograd's: nothing here is chunked, parallel or
fused, so that nothing of the engine's cleverness can be shared by mistake.
"""

import math

import torch

NORM_EPSILON = 1e-6


def srms_norm(x):
    """x / sqrt(mean(x^2) + eps) over the last dimension; no weight."""
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + NORM_EPSILON)


def base_slopes(heads):
    """ALiBi's slopes; a head count that is no power of two borrows from the next power."""
    if heads & (heads - 1) == 0:
        start = 2.0 ** (-(2.0 ** -(math.log2(heads) - 3)))
        return [start ** (i + 1) for i in range(heads)]
    closest = 2 ** int(math.floor(math.log2(heads)))
    return base_slopes(closest) + base_slopes(2 * closest)[0::2][: heads - closest]


def layer_slopes(heads, layer, layers):
    depth = layer / (layers - 1) if layers > 1 else 0.0
    return torch.tensor(base_slopes(heads), dtype=torch.float64) * (1.0 - depth + 1e-5)


def initial_theta(heads, head_size):
    """theta_{h,i} = 10000^(-2 (h head_size + i) / hidden), [heads, head_size]."""
    index = torch.arange(heads * head_size, dtype=torch.float64).reshape(heads, head_size)
    return 10000.0 ** (-2.0 / (heads * head_size) * index)


def linear_attention(q, k, v, slopes):
    """o_i = sum_{j<=i} exp(-slope (i - j)) (q_i . k_j) v_j for [batch, heads, tokens, width]."""
    tokens = q.shape[2]
    position = torch.arange(tokens, dtype=torch.float64)
    distance = position[:, None] - position[None, :]
    decay = torch.exp(-slopes[:, None, None] * distance.clamp(min=0.0)) * (distance >= 0)
    return torch.matmul(torch.matmul(q, k.transpose(-1, -2)) * decay, v)


def gated_linear_attention(x, qkvu, out, heads, slopes, theta):
    batch, tokens, hidden = x.shape
    q, k, v, u = (x @ qkvu.T).split(hidden, dim=-1)

    def split_heads(y):
        return y.reshape(batch, tokens, heads, hidden // heads).transpose(1, 2)

    q = split_heads(torch.nn.functional.silu(q))
    k = split_heads(torch.nn.functional.silu(k))
    if theta is not None:
        position = torch.arange(tokens, dtype=torch.float64)
        angle = theta[:, None, :] * position[None, :, None]
        q = torch.cat([q * torch.cos(angle), q * torch.sin(angle)], dim=-1)
        k = torch.cat([k * torch.cos(angle), k * torch.sin(angle)], dim=-1)
    o = linear_attention(q, k, split_heads(v), slopes)
    o = o.transpose(1, 2).reshape(batch, tokens, hidden)
    return (u * srms_norm(o)) @ out.T


def loss(parameters, tokens, labels, layers, heads, theta):
    """Mean cross entropy in nats a token.

    parameters: name -> fp64 tensor; linear weights are [out, in]. tokens, labels: [batch, length].
    theta: [heads, hidden / heads] of the first layer (a constant or a parameter).
    """
    embedding = parameters["model.embed_tokens.weight"]
    hidden = embedding.shape[1]
    x = math.sqrt(hidden) * embedding[tokens]
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        x = x + gated_linear_attention(
            srms_norm(x),
            parameters[prefix + "token_mixer.qkvu_proj.weight"],
            parameters[prefix + "token_mixer.out_proj.weight"],
            heads,
            layer_slopes(heads, layer, layers),
            theta if layer == 0 else None,
        )
        y = srms_norm(x)
        gate = (y @ parameters[prefix + "channel_mixer.l1.weight"].T) * (
            y @ parameters[prefix + "channel_mixer.l2.weight"].T
        )
        x = x + gate @ parameters[prefix + "channel_mixer.l3.weight"].T
    head = parameters.get("lm_head.weight", embedding)
    logits = srms_norm(x) @ head.T
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    )
