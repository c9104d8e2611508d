"""Writes tests/nn/fixtures/unet_*.safetensors with diffusers' UNet2DModel in float64 (torch 2.x, diffusers 0.42).

    python tests/reference/make_unet_fixtures.py

The configurations stand again, in C++, in tests/nn/unet_parity_test.cpp.
"""
import pathlib

import diffusers.models.embeddings as embeddings
import numpy
import torch
from diffusers import UNet2DModel

from parity import fill, input_of, loss_of, near, write

OUT = pathlib.Path(__file__).resolve().parent.parent / "nn" / "fixtures"


def embedding_in_double(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1.0, scale=1.0,
                        max_period=10000):
    """diffusers computes the sinusoid in float32 whatever the model's type; here in float64."""
    half = embedding_dim // 2
    k = torch.arange(half, dtype=torch.float64)
    a = scale * timesteps.double()[:, None] * torch.exp(-numpy.log(max_period) * k / (half - downscale_freq_shift))
    parts = [torch.cos(a), torch.sin(a)] if flip_sin_to_cos else [torch.sin(a), torch.cos(a)]
    if embedding_dim % 2:
        parts.append(torch.zeros(len(timesteps), 1))
    return torch.cat(parts, dim=1)


embeddings.get_timestep_embedding = embedding_in_double

CASES = {
    "golden": dict(
        shape=(2, 3, 8, 8), t=[7, 250],
        config=dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                    flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, norm_eps=1e-6,
                    attention_head_dim=None)),
    "heads": dict(
        shape=(2, 1, 16, 16), t=[3, 999], labels=torch.tensor([2, 4]),
        config=dict(in_channels=1, out_channels=1, block_out_channels=(8, 12, 16), layers_per_block=2,
                    norm_num_groups=4, attention_head_dim=4, num_class_embeds=5,
                    mid_block_scale_factor=1.4142135623730951,
                    down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
                    up_block_types=("UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"))),
    "scale_shift": dict(
        shape=(2, 3, 8, 8), t=[12, 500], labels=torch.tensor([3, 9]),
        config=dict(out_channels=6, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                    center_input_sample=True, resnet_time_scale_shift="scale_shift", downsample_type="resnet",
                    upsample_type="resnet", class_embed_type="timestep",
                    down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
                    up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"))),
    "fourier": dict(
        shape=(2, 3, 12, 8), t=[0.5, 3.0],
        config=dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, time_embedding_type="fourier",
                    time_embedding_dim=20, add_attention=False, downsample_padding=0,
                    down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))),
    "learned": dict(
        shape=(2, 3, 8, 8), t=[3, 19], labels=torch.sin(0.2 * torch.arange(64) + 0.5).reshape(2, 32),
        config=dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, time_embedding_type="learned",
                    num_train_timesteps=20, class_embed_type="identity", resnet_time_scale_shift="scale_shift",
                    attn_norm_num_groups=2, act_fn="relu",
                    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))),
    "odd": dict(
        shape=(2, 2, 8, 8), t=[1, 77],
        config=dict(in_channels=2, out_channels=2, block_out_channels=(9, 12, 15), layers_per_block=1,
                    norm_num_groups=3, attention_head_dim=3, freq_shift=1, act_fn="gelu", mid_block_type=None,
                    down_block_types=("ResnetDownsampleBlock2D", "UNetResAttnDownBlock2D", "DownBlock2D"),
                    up_block_types=("UpBlock2D", "UNetResAttnUpBlock2D", "ResnetUpsampleBlock2D"))),
    "digits": dict(
        shape=(2, 1, 28, 28), t=[20, 640],
        config=dict(in_channels=1, out_channels=1, block_out_channels=(8, 8, 16), layers_per_block=2,
                    norm_num_groups=4, attention_head_dim=None, dropout=0.1,
                    down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
                    up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))),
}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        net = UNet2DModel(**case["config"]).double().eval()
        net.load_state_dict(fill({k: v.shape for k, v in net.state_dict().items()}))
        x = input_of(case["shape"])
        y = net(x, torch.tensor(case["t"]), class_labels=case.get("labels")).sample
        loss = loss_of(y)
        loss.backward()
        trained = {k: p.grad for k, p in net.named_parameters() if p.requires_grad}
        frozen = {k: v for k, v in net.state_dict().items() if k not in trained}
        total = write(OUT / f"unet_{name}.safetensors", y, x.grad, trained, frozen)
        if name == "golden":
            near(y[0, 0, 0, :6].detach().numpy(), [.228964712988, .585405370048, .772982618715, .668759986658,
                                                   .456533161052, .277527556502], "y")
            near(float(loss), -10.172470659423, "loss")
            near(float(x.grad.norm()), 37.711445582761, "norm of dx")
            near(total, 1394.912788309837, "norm of the gradients")


if __name__ == "__main__":
    main()
