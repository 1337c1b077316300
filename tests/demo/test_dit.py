"""The transformer that ships, as files, and the measures of how pictures follow prompts."""

import json

import pytest
import torch
from crossframe.demo import dit, follows, looks, model, world
from crossframe.demo.looks import COLOURS, MOODS

LARGEST = 8 * 1024**2  # bytes
PICTURES = 20


def test_it_is_small_and_in_half_precision():
    from safetensors import safe_open

    files = [file for file in dit.FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LARGEST
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert {file.parent.name for file in weights} == {"transformer", "text_encoder"}
    for file in weights:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                assert tensors.get_tensor(name).dtype == torch.float16, name


def test_its_configs_are_those_of_the_builders(pipeline):
    def config(name):
        return json.loads((dit.FOLDER / name).read_text(encoding="utf-8"))

    assert config("transformer/config.json") == dit.SETTINGS
    assert config("scheduler/scheduler_config.json") == {"shift": dit.SHIFT}
    built = model.new_text_encoder(pipeline.tokenizer).config.to_dict()
    found = config("text_encoder/config.json")
    unimportant = ("transformers_version", "architectures", "dtype")
    assert all(built[name] == found[name] for name in found if name not in unimportant)


def test_noise_levels_keep_the_ends_and_lean_to_noise():
    even = torch.linspace(0, 1, 11)
    levels = dit.noise_levels(even)
    assert levels[0] == 0
    assert levels[-1] == 1
    assert (levels.diff() > 0).all()
    assert (levels[1:-1] > even[1:-1]).all()


def stills():
    """(a few frames, what their pixels show)."""
    clip = world.random_stills(PICTURES, torch.Generator().manual_seed(1))
    return clip, world.labels(clip)[1]


def drawn(clip, mood=None, **named):
    """The frames of a clip, each with a look of its own that a prompt describes."""
    from random import Random

    random, found = Random(0), []
    while len(found) < len(clip):
        look, prompt = looks.random_look(random)
        if prompt == looks.describe(mood, named):
            found.append(look)
    return world.render(clip, torch.stack(found))


@pytest.mark.parametrize("colour", COLOURS)
def test_true_colours_are_right_and_others_are_not(colour):
    clip, part = stills()
    pictures = drawn(clip, background=colour)
    other = next(name for name in COLOURS if name != colour)
    assert all(follows.named_colours(pictures, part, {"background": colour}))
    assert not any(follows.named_colours(pictures, part, {"background": other}))


def test_what_a_picture_does_not_show_is_not_judged():
    clip, part = stills()
    pictures = drawn(clip)
    assert len(follows.named_colours(pictures, part, {"background": "red"})) == PICTURES
    assert len(follows.named_colours(pictures, part, {"discs": "red"})) < PICTURES
    assert not follows.named_colours(pictures, part, {})


@pytest.mark.parametrize("mood", MOODS)
def test_true_pictures_are_in_their_mood(mood):
    clip, part = stills()
    right = follows.in_mood(drawn(clip, mood), part, mood)
    assert len(right) > PICTURES
    assert sum(right) > 0.95 * len(right)
    assert any(
        sum(follows.in_mood(drawn(clip, mood), part, other)) < 0.3 * len(right) for other in MOODS
    )


def test_training_knows_which_latents_lie_on_objects():
    from crossframe.demo import train_dit

    found = train_dit.shown_objects(seed=3)
    clip = world.random_stills(train_dit.CHUNK, torch.Generator().manual_seed(3))
    instance, _ = world.labels(clip)
    windows = instance.unfold(1, model.SHRINK, model.SHRINK).unfold(2, model.SHRINK, model.SHRINK)
    windows = windows.flatten(3)  # the pixels of each latent
    pure = (windows == windows[..., :1]).all(dim=3) & (windows[..., 0] >= 0)
    assert pure.float().mean() > 0.5
    assert torch.equal(found[pure], windows[..., 0][pure] > 0)


def test_half_of_the_noise_levels_are_high():
    from crossframe.demo import train_dit

    levels = train_dit.drawn_levels(1000, torch.Generator().manual_seed(0))
    highest = dit.noise_levels(torch.tensor(train_dit.HIGH))
    assert (levels[:500] >= highest).all()
    assert levels[500:].min() < 0.2


def test_prompts_name_as_many_colours_as_wished():
    from random import Random

    def named(share):
        random = Random(0)
        prompts = [looks.random_look(random, share)[1] for _ in range(300)]
        return sum(word in COLOURS for prompt in prompts for word in prompt.split()) / 1200

    assert named(0.2) == pytest.approx(0.2, abs=0.05)
    assert named(0.75) == pytest.approx(0.75, abs=0.05)


def test_what_is_said_has_a_number_for_each_answer():
    from crossframe.demo import train_dit

    assert train_dit.numbered(None, {}) == [0, 0, 0, 0, 0]
    said = train_dit.numbered("cold", {"background": "red", "squares": "pink"})
    assert said == [1 + list(MOODS).index("cold"), 1, 0, len(COLOURS), 0]
