"""Writes tests/nn/fixtures/dit_*.safetensors in float64: the original dialect from its description (Peebles and Xie,
arXiv 2212.09748), the other one with diffusers' DiTTransformer2DModel (torch 2.x, diffusers 0.42).

    python tests/reference/make_dit_fixtures.py

Both are kept under the keys of the original. The configurations stand again in tests/nn/dit_parity_test.cpp.
"""
import math

import numpy
import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel

from make_unet_fixtures import OUT  # which also makes diffusers' sinusoid double
from parity import fill, input_of, loss_of, near, write

CASES = {
    "golden": dict(dialect="facebook", shape=(2, 3, 8, 8), t=[7, 250], labels=[3, 10], patch=2, width=32, depth=2,
                   heads=4, mlp_ratio=4, classes=10, sigma=True),
    "patch4": dict(dialect="facebook", shape=(3, 1, 12, 12), t=[0, 499, 999], labels=[0, 2, 1], patch=4, width=24,
                   depth=3, heads=3, mlp_ratio=2, classes=2, sigma=False),
    "diffusers": dict(dialect="diffusers", shape=(2, 3, 8, 8), t=[7, 250], labels=[3, 10], patch=2, width=32, depth=2,
                      heads=4, mlp_ratio=4, classes=10, sigma=True),
}


def shapes_of(c):
    channels, d, p = c["shape"][1], c["width"], c["patch"]
    out = channels * (2 if c["sigma"] else 1)
    s = {"x_embedder.proj.weight": (d, channels, p, p), "x_embedder.proj.bias": (d,),
         "y_embedder.embedding_table.weight": (c["classes"] + 1, d)}

    def layer(name, rows, columns):
        s[name + ".weight"], s[name + ".bias"] = (rows, columns), (rows,)

    layer("t_embedder.mlp.0", d, 256)
    layer("t_embedder.mlp.2", d, d)
    for i in range(c["depth"]):
        layer(f"blocks.{i}.attn.qkv", 3 * d, d)
        layer(f"blocks.{i}.attn.proj", d, d)
        layer(f"blocks.{i}.mlp.fc1", c["mlp_ratio"] * d, d)
        layer(f"blocks.{i}.mlp.fc2", d, c["mlp_ratio"] * d)
        layer(f"blocks.{i}.adaLN_modulation.1", 6 * d, d)
    layer("final_layer.linear", p * p * out, d)
    layer("final_layer.adaLN_modulation.1", 2 * d, d)
    return s


def positions(side, d):
    """(side^2, d): the first half of the channels encodes the column, the second the row; rounded to float32."""
    omega = 10000.0 ** (-numpy.arange(d // 4) / (d / 4))
    row, column = numpy.divmod(numpy.arange(side * side), side)

    def half(v):
        a = v[:, None] * omega[None]
        return numpy.concatenate([numpy.sin(a), numpy.cos(a)], axis=1)

    table = numpy.concatenate([half(column), half(row)], axis=1)
    return torch.from_numpy(table.astype(numpy.float32).astype(numpy.float64))[None]


def original(c, w, x):
    n, channels, side, _ = x.shape
    d, p, heads = c["width"], c["patch"], c["heads"]
    grid = side // p

    def layer(name, v):
        return v @ w[name + ".weight"].T + w[name + ".bias"]

    def modulated(v, shift, scale):
        return F.layer_norm(v, (d,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    h = F.conv2d(x, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=p).flatten(2).transpose(1, 2)
    h = h + positions(grid, d)
    a = torch.tensor(c["t"], dtype=torch.float64)[:, None] * torch.exp(-math.log(1e4) * torch.arange(128) / 128)
    e = layer("t_embedder.mlp.2", F.silu(layer("t_embedder.mlp.0", torch.cat([a.cos(), a.sin()], 1))))
    e = F.silu(e + w["y_embedder.embedding_table.weight"][torch.tensor(c["labels"])])
    for i in range(c["depth"]):
        b = f"blocks.{i}."
        m = layer(b + "adaLN_modulation.1", e).chunk(6, dim=1)
        q, k, v = layer(b + "attn.qkv", modulated(h, m[0], m[1])).reshape(n, -1, 3, heads, d // heads).unbind(2)
        score = torch.einsum("nihd,njhd->nhij", q, k) / math.sqrt(d // heads)
        mixed = torch.einsum("nhij,njhd->nihd", score.softmax(-1), v).reshape(n, -1, d)
        h = h + m[2][:, None] * layer(b + "attn.proj", mixed)
        z = F.gelu(layer(b + "mlp.fc1", modulated(h, m[3], m[4])), approximate="tanh")
        h = h + m[5][:, None] * layer(b + "mlp.fc2", z)
    shift, scale = layer("final_layer.adaLN_modulation.1", e).chunk(2, dim=1)
    o = layer("final_layer.linear", modulated(h, shift, scale)).reshape(n, grid, grid, p, p, -1)
    return o.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, side, side)


def with_diffusers(c, w, x):
    """The network of diffusers with parameters computed from w, so that gradients come back to w."""
    channels, d = c["shape"][1], c["width"]
    net = DiTTransformer2DModel(
        num_attention_heads=c["heads"], attention_head_dim=d // c["heads"], in_channels=channels,
        out_channels=channels * (2 if c["sigma"] else 1), num_layers=c["depth"], sample_size=c["shape"][2],
        patch_size=c["patch"], num_embeds_ada_norm=c["classes"]).double().eval()
    near((net.pos_embed.pos_embed - positions(c["shape"][2] // c["patch"], d)).abs().max(), 0.0, "positions", 0.0)
    values = {}

    def copy(to, come):
        values[to + ".weight"], values[to + ".bias"] = w[come + ".weight"], w[come + ".bias"]

    copy("pos_embed.proj", "x_embedder.proj")
    copy("proj_out_1", "final_layer.adaLN_modulation.1")
    copy("proj_out_2", "final_layer.linear")
    for i in range(c["depth"]):
        to, come = f"transformer_blocks.{i}.", f"blocks.{i}."
        copy(to + "norm1.emb.timestep_embedder.linear_1", "t_embedder.mlp.0")
        copy(to + "norm1.emb.timestep_embedder.linear_2", "t_embedder.mlp.2")
        values[to + "norm1.emb.class_embedder.embedding_table.weight"] = w["y_embedder.embedding_table.weight"]
        copy(to + "norm1.linear", come + "adaLN_modulation.1")
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", w[come + "attn.qkv." + kind].chunk(3)):
                values[to + f"attn1.to_{name}.{kind}"] = part
        copy(to + "attn1.to_out.0", come + "attn.proj")
        copy(to + "ff.net.0.proj", come + "mlp.fc1")
        copy(to + "ff.net.2", come + "mlp.fc2")
    if set(values) != set(net.state_dict()):
        raise SystemExit(f"keys: {set(values) ^ set(net.state_dict())}")
    y = torch.func.functional_call(net, values, (x,), dict(timestep=torch.tensor(c["t"]),
                                                            class_labels=torch.tensor(c["labels"])))
    return y.sample


def main():
    for name, c in CASES.items():
        w = {k: v.requires_grad_() for k, v in fill(shapes_of(c)).items()}
        x = input_of(c["shape"])
        y = (original if c["dialect"] == "facebook" else with_diffusers)(c, w, x)
        loss = loss_of(y)
        loss.backward()
        side, d = c["shape"][2] // c["patch"], c["width"]
        total = write(OUT / f"dit_{name}.safetensors", y, x.grad, {k: v.grad for k, v in w.items()},
                      {"pos_embed": positions(side, d)})
        if name == "golden":
            # Digits of an independent computation, whose position table may differ in the last bit of float32.
            near(y[0, 0, 0, :6].detach().numpy(), [0.810217643, -1.557118256, 0.548106157, -1.495481370, 0.291424266,
                                                   -1.355568743], "y", 1e-8)
            near(float(y.detach().sum()), 48.311020225896904, "sum of y")
            near(float(loss.detach()), -9.776656090347, "loss", 1e-8)
            near(float(x.grad.norm()), .562809172165, "norm of dx")
            near(total, 229.345512668738, "norm of the gradients")


if __name__ == "__main__":
    main()
