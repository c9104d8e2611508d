"""Small checkpoints as diffusers and peft write them, with what the networks put out: tests/cli/fixtures.

    python tests/reference/make_checkpoint_fixtures.py tests/cli/fixtures

Made with torch 2.15, diffusers 0.42, peft 0.21, safetensors 0.8. The fill rule keeps the files the same on every machine.
"""
import json
import math
import pathlib
import shutil
import sys

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler, UNet2DModel
from safetensors.torch import save_file


def fill(model):
    """Element i of the j-th of the sorted keys is 0.1 sin(0.37 i + 1.3 j), and 1 more in the weights of norms."""
    state = model.state_dict()
    for j, key in enumerate(sorted(state)):
        # The copies of the embedders of a DiT stay copies.
        j = min(k for k, other in enumerate(sorted(state)) if other.split(".norm1.emb.")[-1] == key.split(".norm1.emb.")[-1])
        i = torch.arange(state[key].numel(), dtype=torch.float64)
        v = 0.1 * torch.sin(0.37 * i + 1.3 * j) + (1.0 if "norm" in key and key.endswith("weight") and state[key].dim() == 1 else 0.0)
        state[key] = v.reshape(state[key].shape).float()
    model.load_state_dict(state)
    return model.eval()


def inputs(channels, side):
    x = torch.sin(0.11 * torch.arange(2 * channels * side * side, dtype=torch.float64)).reshape(2, channels, side, side)
    return x.float(), torch.tensor([7.0, 250.0])


def unet():
    return fill(UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), layers_per_block=1,
                            norm_num_groups=2, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                            up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4))


def main(out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.manual_seed(0)
    with torch.no_grad():
        model = unet()
        x, t = inputs(1, 8)
        DDPMPipeline(model, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(out / "unet_pipeline")
        save_file({"x": x, "t": t, "y": model(x, t).sample.contiguous()}, out / "unet_expected.safetensors")
        model.save_pretrained(out / "unet_sharded", max_shard_size="20KB")
        (out / "unet_sharded" / "scheduler_config.json").write_text(FlowMatchEulerDiscreteScheduler(shift=3.0).to_json_string())
        dit = fill(DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=2, num_layers=2,
                                         sample_size=8, patch_size=4, num_embeds_ada_norm=3))
        dit.save_pretrained(out / "dit")
        save_file({"x": x, "t": t, "labels": torch.tensor([1, 3], dtype=torch.int32),
                   "y": dit(x, timestep=t, class_labels=torch.tensor([1, 3])).sample.contiguous()}, out / "dit_expected.safetensors")

    # Adapters of peft on the UNet.
    from peft import LoraConfig, get_peft_model
    tuned = get_peft_model(unet(), LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_out.0", "conv1"], bias="none"))
    state = {k: v for k, v in tuned.state_dict().items() if "lora_" in k}
    for j, key in enumerate(sorted(state)):
        i = torch.arange(state[key].numel(), dtype=torch.float64)
        state[key].copy_((0.2 * torch.cos(0.31 * i + 0.7 * j)).reshape(state[key].shape))
    tuned.save_pretrained(out / "unet_lora")
    (out / "unet_lora" / "README.md").unlink()
    with torch.no_grad():
        save_file({"y": tuned(x, t).sample.contiguous()}, out / "unet_lora_expected.safetensors")
    for path in (out / "unet_lora").glob("*.json"):  # names of this machine's folders stay out
        config = json.loads(path.read_text())
        config["base_model_name_or_path"] = None
        path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
