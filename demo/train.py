"""Train the demo model from scratch: `python tools/module.py demo.train`.

There are three stages: the autoencoder, then the latents of a fixed set of pictures, then U-Net,
ControlNet and text encoder together. Every stage continues where it was interrupted. All random
numbers follow from the seed and the iteration, so they are the same after an interruption.
"""

import argparse
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from diffusers import StableDiffusionControlNetImg2ImgPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from . import model, world
from .looks import NAMED, random_look
from .training import Loss, minimise, save, seed_of

WITHOUT_PROMPT = 0.1  # share of pictures trained without a prompt, which guidance needs
WITHOUT_CONTROL = 0.1  # share of batches trained without ControlNet
CONTROL_NOISE = 0.02  # standard deviation of noise on hints, because videos are compressed
RATE = 1e-3


def main() -> None:
    options = parse_options()
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    autoencoder = train_autoencoder(options)
    latents, hints, prompts = encode_pictures(options, autoencoder)
    networks = train_networks(options, latents, hints, prompts)
    export(options, autoencoder, networks)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/demo-training"))
    parser.add_argument("--output", type=Path, default=model.FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--autoencoder-iterations", type=int, default=1_000)
    parser.add_argument("--iterations", type=int, default=7_500)
    return parser.parse_args()


def pictures(count: int, seed: int, share_named: float = NAMED) -> tuple[Tensor, Tensor, list[str]]:
    """Return random pictures and hints, both (count, 3, SIZE, SIZE) in 0..1, and their prompts.

    share_named: the share of classes whose colour a prompt names.
    """
    generator = torch.Generator().manual_seed(seed)
    random = Random(seed)
    stills = world.random_stills(count, generator)
    looks, prompts = zip(*(random_look(random, share_named) for _ in range(count)))
    return world.render(stills, torch.stack(looks)), world.render(stills, world.PLAIN), [*prompts]


def train_autoencoder(options: argparse.Namespace) -> nn.Module:
    """Train an autoencoder on pictures and sources, with latents close to a unit Gaussian.

    This follows Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models,
    section 3.1, without the adversarial part. It is trained on quarters of pictures, for speed.
    """
    autoencoder = model.new_autoencoder().to(options.device)
    begin_with_averages(autoencoder)
    total = options.autoencoder_iterations
    side = world.SIZE // 2

    def loss(iteration: int, generator: torch.Generator) -> Tensor:
        painted, plain, _ = pictures(
            options.batch // 4, seed=seed_of(options.seed, "vae", iteration)
        )
        whole = torch.cat((painted, plain[:1]))
        quarters = whole.unfold(2, side, side).unfold(3, side, side)  # (n, 3, 2, 2, side, side)
        images = quarters.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side)
        images = images.to(options.device) * 2 - 1
        posterior = autoencoder.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(options.device)
        copies = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        closeness = F.l1_loss(copies, images) + 2 * F.mse_loss(copies, images)
        return closeness + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()

    train(options, "autoencoder", {"autoencoder": autoencoder}, total, loss)
    return autoencoder.eval()


@torch.no_grad()
def begin_with_averages(autoencoder: nn.Module) -> None:
    """Set the skip path of a new autoencoder so that it averages colours and repeats them.

    From random weights, most of the training is spent on learning that colours have to pass the
    bottleneck. With these weights, only the shapes within a latent remain to be learned. Channels 0
    to 2 carry RGB from end to end. Before each output, normalisation would remove the mean level
    of a picture, and SiLU would remove negative values. So channel 3 carries a constant to compare
    with, and a shift keeps all four channels in the straight part of SiLU.
    """
    level, shift = 3.0, 4.0
    colours, reference = [0, 1, 2], 3
    encoder, decoder = autoencoder.encoder, autoencoder.decoder

    def carry(conv: nn.Module, channels: list[int], taps: tuple[slice, slice]) -> None:
        """Let a convolution copy channels, as the mean over some taps of its kernel."""
        conv.weight[channels] = 0
        conv.bias[channels] = 0
        for channel in channels:
            kernel = conv.weight[channel, channel]
            kernel[taps] = 1 / kernel[taps].numel()

    def give_out(norm: nn.Module, conv: nn.Module) -> None:
        """Let the output be the colours, compared with the constant."""
        norm.bias[[*colours, reference]] = shift
        size = norm.num_channels // norm.num_groups
        # The standard deviation of a group that holds the constant and otherwise zeros.
        spread = level * (size - 1) ** 0.5 / size
        conv.weight[colours] = 0
        conv.bias[colours] = level
        middle = conv.weight[..., conv.kernel_size[0] // 2, conv.kernel_size[1] // 2]
        for colour in colours:
            middle[colour, colour], middle[colour, reference] = spread, -spread

    centre = slice(1, 2), slice(1, 2)
    all_four = [*colours, reference]
    for name, part in autoencoder.named_modules():
        if name.endswith(("conv2", "to_out.0")):  # residual branches begin with output 0
            part.weight.zero_()
            part.bias.zero_()
        elif name.endswith("downsamplers.0.conv"):  # padded only on the right and below
            carry(part, all_four, (slice(0, 2), slice(0, 2)))
        elif name.endswith("upsamplers.0.conv"):
            carry(part, all_four, centre)
        elif name.endswith(("conv_shortcut", "quant_conv")):
            carry(part, all_four, (slice(None), slice(None)))
    for conv in (encoder.conv_in, decoder.conv_in):
        carry(conv, colours, centre)
        conv.weight[reference] = 0
        conv.bias[reference] = level
    give_out(encoder.conv_norm_out, encoder.conv_out)
    give_out(decoder.conv_norm_out, decoder.conv_out)
    spread = slice(model.LATENT_CHANNELS, None)  # begins small, so that noise does not hide colours
    autoencoder.quant_conv.weight[spread] *= 0.1
    autoencoder.quant_conv.bias[spread] = -5.0


@torch.no_grad()
def encode_pictures(
    options: argparse.Namespace, autoencoder: nn.Module
) -> tuple[Tensor, Tensor, list[str]]:
    """Return the training set: latents scaled to unit variance, hints as bytes, and prompts."""
    file = options.work / f"pictures-{options.pictures}.pt"
    if not file.exists():
        latents, hints, prompts = [], [], []
        for chunk in tqdm(range(options.pictures // 50), desc="encode pictures"):
            painted, plain, texts = pictures(50, seed=seed_of(options.seed, "pictures", chunk))
            posterior = autoencoder.encode(painted.to(options.device) * 2 - 1).latent_dist
            latents.append(posterior.mean.half().cpu())
            hints.append((plain * 255).round().byte())
            prompts += texts
        save((torch.cat(latents), torch.cat(hints), prompts), file)
    latents, hints, prompts = torch.load(file)
    scale = 1 / float(latents.float().std())
    autoencoder.register_to_config(scaling_factor=scale)
    return latents.float() * scale, hints, prompts


def train_networks(
    options: argparse.Namespace, latents: Tensor, hints: Tensor, prompts: list[str]
) -> dict[str, nn.Module]:
    """Train U-Net, ControlNet and text encoder together; return their averaged weights.

    The target is v = alpha * noise - sigma * latent (Salimans and Ho, Progressive Distillation for
    Fast Sampling of Diffusion Models, appendix D).
    """
    tokenizer = model.new_tokenizer(options.work / "tokenizer")
    unet = model.new_unet()
    networks = {
        "unet": unet,
        "controlnet": model.new_controlnet(unet),
        "text_encoder": model.new_text_encoder(tokenizer),
    }
    for network in networks.values():
        network.to(options.device, memory_format=torch.channels_last)
    unet, controlnet, text_encoder = networks.values()
    scheduler = model.new_scheduler()
    tokens = tokenizer(
        [*prompts, ""], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids

    def loss(iteration: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (options.batch,), generator=generator)
        clean = latents[rows].to(options.device)
        noise = torch.randn(clean.shape, generator=generator).to(options.device)
        times = torch.randint(1000, (options.batch,), generator=generator)
        hint = hints[rows] / 255
        hint = hint + CONTROL_NOISE * torch.randn(hint.shape, generator=generator)
        unprompted = torch.rand(options.batch, generator=generator) < WITHOUT_PROMPT
        spoken = tokens[torch.where(unprompted, len(prompts), rows)].to(options.device)
        controlled = torch.rand((), generator=generator) >= WITHOUT_CONTROL

        times = times.to(options.device)
        noisy = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        context = text_encoder(spoken).last_hidden_state
        extras = {}
        if controlled:
            down, middle = controlnet(
                noisy, times, context, hint.to(options.device), return_dict=False
            )
            extras["down_block_additional_residuals"] = down
            extras["mid_block_additional_residual"] = middle
        return F.mse_loss(unet(noisy, times, context, **extras).sample, target)

    averages = train(options, "networks", networks, options.iterations, loss)
    for name, network in networks.items():
        network.load_state_dict(averages[name])
    return networks


def train(
    options: argparse.Namespace,
    name: str,
    networks: dict[str, nn.Module],
    total: int,
    loss: Loss,
) -> dict[str, dict[str, Tensor]]:
    """Minimise a loss with AdamW and one learning-rate cycle; return the averaged weights."""
    parameters = [p for network in networks.values() for p in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total, pct_start=0.05)
    file = options.work / f"{name}.pt"
    return minimise(loss, networks, [optimizer], [schedule], total, file, options.seed)


def export(
    options: argparse.Namespace, autoencoder: nn.Module, networks: dict[str, nn.Module]
) -> None:
    """Write the model in half precision, in the layout of a diffusers pipeline."""
    pipeline = StableDiffusionControlNetImg2ImgPipeline(
        vae=autoencoder.cpu().half(),
        tokenizer=model.new_tokenizer(options.work / "tokenizer"),
        scheduler=model.new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **{name: network.cpu().half() for name, network in networks.items()},
    )
    pipeline.save_pretrained(options.output)
    # Version 4 of transformers reads other files than version 5 writes. Both read these.
    model.new_tokenizer(options.output / "tokenizer")
    file = options.output / "text_encoder" / "model.safetensors"
    save_file(text_model_weights(load_file(file)), file, metadata={"format": "pt"})
    print(f"written to {options.output}")


def text_model_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a text encoder's weights by names that versions 4 and 5 of transformers both read."""
    prefix = "text_model."
    return {prefix + name.removeprefix(prefix): weight for name, weight in weights.items()}


if __name__ == "__main__":
    main()
