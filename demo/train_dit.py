"""Train the demo's transformer from scratch: `python tools/module.py demo.train_dit`.

It needs ComfyUI, whose class the network is, and the shipped autoencoder, which stays as it is. The
pictures are those on which the U-Net was trained, or some of them. Training continues where it was
interrupted, as `demo.train` does.
"""

import argparse
import json
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTokenizer

from . import dit, model, world
from .looks import COLOURS, MOODS, NAMED, NAMES, describe, random_words
from .model import PROMPT_CHANNELS
from .train import WITHOUT_PROMPT, pictures, text_model_weights
from .training import minimise, save, seed_of

WITHOUT_HINT = 0.05  # share of pictures trained without a hint
HINT_NOISE = 0.05  # standard deviation of noise on the hints' latents, since videos are compressed
MATRIX_RATE = 4e-3  # of the blocks' matrices, which Muon trains
RATE = 1e-3  # of all other weights, which AdamW trains
TEXT_RATE = 5e-4  # of the text encoder, which can read by then
BATCH_READ, SHARE_READ, READING_RATE = 64, 0.5, 2e-3  # of learning to read
CHUNK = 50  # pictures that are drawn and encoded at once
MORE_NAMED = 0.75  # share of classes whose colour is named in the pictures that name many
FROM_NAMING = 0.7  # share of training pictures that are drawn from those
OBJECT_WEIGHT = 3.0  # of latents that lie on objects, in the loss; 1 is that of the background
HIGH = 0.7  # of evenly spread noise levels, half are at least so high
RISE, FALL = 100, 0.35  # iterations until the rate is reached; share of them in which it falls to 0


class Pictures(NamedTuple):
    """A training set: scaled latents of pictures and hints, which latents lie on objects, prompts.

    latents, hints: (n, channels, height, width). objects: (n, height, width), bool.
    """

    latents: Tensor
    hints: Tensor
    objects: Tensor
    prompts: list[str]


def main() -> None:
    options = parse_options()
    use_comfyui_for_training()
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    autoencoder = AutoencoderKL.from_pretrained(model.FOLDER / "vae").to(options.device)
    export(options, train_networks(options, training_set(options, autoencoder)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/demo-training"))
    parser.add_argument("--output", type=Path, default=dit.FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=8_000)
    parser.add_argument("--naming-pictures", type=int, default=4_000)
    parser.add_argument("--reading-iterations", type=int, default=800)
    parser.add_argument("--iterations", type=int, default=2_200)
    return parser.parse_args()


def use_comfyui_for_training() -> None:
    """Make ComfyUI importable, and let its functions keep what gradients need."""
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    import comfy.model_management

    comfy.model_management.in_training = True


def training_set(options: argparse.Namespace, autoencoder: AutoencoderKL) -> Pictures:
    """Return pictures as the U-Net saw them, and pictures whose prompts name many colours."""
    usual = encode_pictures(options, autoencoder, "pictures", options.pictures, NAMED)
    naming = encode_pictures(options, autoencoder, "naming", options.naming_pictures, MORE_NAMED)
    return Pictures(
        *(torch.cat(parts) for parts in zip(usual[:3], naming[:3], strict=True)),
        usual.prompts + naming.prompts,
    )


@torch.no_grad()
def encode_pictures(
    options: argparse.Namespace,
    autoencoder: AutoencoderKL,
    name: str,
    count: int,
    share_named: float,
) -> Pictures:
    """Return one set of pictures, from its file if there is one. name: the set's."""
    file = options.work / f"latents-{name}-{count}.pt"
    scale = autoencoder.config.scaling_factor
    if not file.exists():
        chunks = []
        for chunk in tqdm(range(count // CHUNK), desc=f"encode {name}"):
            seed = seed_of(options.seed, name, chunk)
            painted, plain, prompts = pictures(CHUNK, seed, share_named)
            latents, hints = (
                autoencoder.encode(images.to(options.device) * 2 - 1).latent_dist.mean.half().cpu()
                for images in (painted, plain)
            )
            chunks.append((latents, hints, shown_objects(seed), prompts))
        *tensors, prompts = zip(*chunks, strict=True)
        save(
            (
                *(torch.cat(parts) for parts in tensors),
                [prompt for of_chunk in prompts for prompt in of_chunk],
            ),
            file,
        )
    latents, hints, objects, prompts = torch.load(file)
    return Pictures(latents.float() * scale, hints.float() * scale, objects, prompts)


def shown_objects(seed: int) -> Tensor:
    """Return which latents of a chunk of pictures lie on objects, (CHUNK, height, width)."""
    clip = world.random_stills(CHUNK, torch.Generator().manual_seed(seed))
    side = world.SIZE // model.SHRINK
    points = (model.SHRINK * world.pixel_centres(side)).reshape(1, -1, 2).expand(CHUNK, -1, -1)
    instance, _ = world.parts_at(clip, points, torch.arange(CHUNK))
    return (instance > 0).reshape(CHUNK, side, side)


def teach_reading(options: argparse.Namespace, tokenizer: CLIPTokenizer) -> nn.Module:
    """Return a text encoder whose pooled output tells the mood and the colour of each class.

    Nothing but prompts is needed for that, so it takes a minute. Without it, the transformer does
    not learn which class a colour belongs to in the time that it is given.
    """
    answers = [1 + len(MOODS), *[1 + len(COLOURS)] * len(NAMES)]  # the first answer is: not named
    text_encoder = model.new_text_encoder(tokenizer)
    networks = {"text_encoder": text_encoder, "head": nn.Linear(PROMPT_CHANNELS, sum(answers))}
    for network in networks.values():
        network.to(options.device)

    def loss(iteration: int, generator: torch.Generator) -> Tensor:
        random = Random(int(torch.randint(2**40, (), generator=generator)))
        words = [random_words(random, SHARE_READ) for _ in range(BATCH_READ)]
        tokens = tokenized(tokenizer, [describe(*said) for said in words]).to(options.device)
        truth = torch.tensor([numbered(*said) for said in words], device=options.device)
        found = networks["head"](text_encoder(tokens).pooler_output).split(answers, dim=1)
        return sum(map(F.cross_entropy, found, truth.unbind(dim=1)))

    parameters = [p for network in networks.values() for p in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=READING_RATE, weight_decay=1e-2)
    total = options.reading_iterations
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, READING_RATE, total, pct_start=0.1)
    file = options.work / "reading.pt"
    minimise(loss, networks, [optimizer], [schedule], total, file, options.seed)
    return text_encoder


def numbered(mood: str | None, named: dict[str, str]) -> list[int]:
    """Return what a prompt says as numbers of answers: the mood, and the colour of each class."""
    colours = [None, *COLOURS]
    return [[None, *MOODS].index(mood), *(colours.index(named.get(name)) for name in NAMES)]


def tokenized(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return the tokens of prompts, (n, PROMPT_TOKENS)."""
    how = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return tokenizer(prompts, **how).input_ids


def train_networks(options: argparse.Namespace, shown: Pictures) -> dict[str, nn.Module]:
    """Train transformer and text encoder together; return them with their averaged weights."""
    tokenizer = model.new_tokenizer(options.work / "tokenizer")
    text_encoder = teach_reading(options, tokenizer)
    networks = {"transformer": dit.new_dit().to(options.device), "text_encoder": text_encoder}
    tokens = tokenized(tokenizer, [*shown.prompts, ""])

    def loss(iteration: int, generator: torch.Generator) -> Tensor:
        rows = drawn_rows(options, generator)
        unprompted = torch.rand(options.batch, generator=generator) < WITHOUT_PROMPT
        spoken = tokens[torch.where(unprompted, len(shown.prompts), rows)]
        return flow_loss(options, networks, shown, rows, spoken, generator)

    optimizers = new_optimizers(**networks)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: rate(done, options.iterations))
        for optimizer in optimizers
    ]
    file = options.work / "transformer.pt"
    total = options.iterations
    averages = minimise(
        loss, networks, optimizers, schedules, total, file, options.seed, every=100, memory=0.995
    )
    for name, network in networks.items():
        network.load_state_dict(averages[name])
    return networks


def drawn_rows(options: argparse.Namespace, generator: torch.Generator) -> Tensor:
    """Draw the numbers of a batch's pictures; most come from those that name many colours."""
    usual = torch.randint(options.pictures, (options.batch,), generator=generator)
    naming = torch.randint(options.naming_pictures, (options.batch,), generator=generator)
    names = torch.rand(options.batch, generator=generator) < FROM_NAMING
    return torch.where(names, options.pictures + naming, usual)


def flow_loss(
    options: argparse.Namespace,
    networks: dict[str, nn.Module],
    shown: Pictures,
    rows: Tensor,
    spoken: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of one batch. rows: its pictures. spoken: its prompts as tokens.

    The target is the velocity noise - latent on the straight line between both (Liu et al., Flow
    Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow). Objects are
    small, so they count more than the background.
    """
    clean, hint = shown.latents[rows], shown.hints[rows]
    noise = torch.randn(clean.shape, generator=generator)
    hint = hint + HINT_NOISE * torch.randn(hint.shape, generator=generator)
    hinted = torch.rand(options.batch, generator=generator) >= WITHOUT_HINT
    levels = drawn_levels(options.batch, generator)
    noisy = torch.lerp(clean, noise, levels[:, None, None, None])
    seen = torch.cat((noisy, hint * hinted[:, None, None, None]), dim=1)

    seen, levels, target = (t.to(options.device) for t in (seen, levels, noise - clean))
    text = networks["text_encoder"](spoken.to(options.device))
    guess = networks["transformer"](seen, levels, text.last_hidden_state, y=text.pooler_output)
    weights = torch.where(shown.objects[rows], OBJECT_WEIGHT, 1.0)
    weights = (weights / weights.mean())[:, None].to(options.device)
    return (weights * (guess - target).square()).mean()


def drawn_levels(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels; half of them are from the high ones, where colours are decided."""
    even = torch.rand(count, generator=generator)
    even[: count // 2] = HIGH + (1 - HIGH) * even[: count // 2]
    return dit.noise_levels(even)


def new_optimizers(transformer: nn.Module, text_encoder: nn.Module) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, and AdamW for all other weights.

    Muon is by Jordan et al., Muon: An optimizer for hidden layers in neural networks.
    """
    matrices, others = [], []
    for name, weight in transformer.named_parameters():
        hidden = "_blocks." in name and weight.ndim == 2 and "mod" not in name
        (matrices if hidden else others).append(weight)
    muon = torch.optim.Muon(
        matrices, lr=MATRIX_RATE, weight_decay=1e-2, adjust_lr_fn="match_rms_adamw"
    )
    spoken = {"params": list(text_encoder.parameters()), "lr": TEXT_RATE}
    adam = torch.optim.AdamW(
        [{"params": others}, spoken], lr=RATE, weight_decay=1e-2, betas=(0.9, 0.99)
    )
    return [muon, adam]


def rate(done: int, total: int) -> float:
    """Return the learning rate as a share of the highest: it rises, stays, and falls to 0."""
    return min(1.0, (done + 1) / RISE, max(0.0, total - done) / (FALL * total))


def export(options: argparse.Namespace, networks: dict[str, nn.Module]) -> None:
    """Write configs, and the weights in half precision."""
    transformer, text_encoder = (network.half() for network in networks.values())
    configs = {
        "transformer/config.json": dit.SETTINGS,
        "scheduler/scheduler_config.json": {"shift": dit.SHIFT},
    }
    for name, config in configs.items():
        file = options.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    text_encoder.config.save_pretrained(options.output / "text_encoder")
    write_weights(transformer.state_dict(), options.output / "transformer")
    write_weights(text_model_weights(text_encoder.state_dict()), options.output / "text_encoder")
    print(f"written to {options.output}")


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """Write the weights of one network."""
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
