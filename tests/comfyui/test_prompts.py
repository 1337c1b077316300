"""Prompts along a clip in real ComfyUI."""

import bench
import pytest
import tiny
import torch

FRAMES = 5


@torch.inference_mode()
def along(clip, text, frames=FRAMES, between="hold"):
    from crossframe.nodes.prompts import CrossFramePrompts

    return CrossFramePrompts.execute(clip, text, frames, between).args[0]


@torch.inference_mode()
def encoded(clip, text):
    import nodes

    return nodes.CLIPTextEncode().encode(clip, text)[0]


def test_each_frame_has_the_prompt_that_the_stock_node_makes(demo):
    ((rows, options),) = along(demo[1], "1: a dark drawing\n3: a neon\ndrawing")
    dark, neon = (encoded(demo[1], text)[0] for text in ("a dark drawing", "a neon drawing"))
    assert len(rows) == FRAMES
    for frame, (cond, others) in enumerate([dark, dark, dark, neon, neon]):
        assert torch.equal(rows[frame : frame + 1], cond)
        assert torch.equal(options["pooled_output"][frame : frame + 1], others["pooled_output"])
    assert options.keys() == dark[1].keys()


def test_the_colon_of_a_chinese_keyboard(demo):
    wide, usual = (along(demo[1], f"0{colon}a dark drawing")[0][0] for colon in ("\uff1a", ": "))
    assert torch.equal(wide, usual)


def test_one_prompt_is_the_same_for_all(demo):
    ((rows, _),) = along(demo[1], "0: a dark drawing", between="blend")
    assert torch.equal(rows, encoded(demo[1], "a dark drawing")[0][0].expand_as(rows))


def test_blending_goes_evenly(demo):
    ((rows, options),) = along(demo[1], "0: a dark drawing\n4: a neon drawing", 6, "blend")
    dark, neon = (encoded(demo[1], text)[0] for text in ("a dark drawing", "a neon drawing"))
    for frame, share in enumerate([0, 0.25, 0.5, 0.75, 1, 1]):
        for found, one, other in (
            (rows[frame], dark[0], neon[0]),
            (options["pooled_output"][frame], dark[1]["pooled_output"], neon[1]["pooled_output"]),
        ):
            assert torch.allclose(found, torch.lerp(one, other, share)[0], atol=1e-5)


class Words:
    """A CLIP whose prompts have as many tokens as words."""

    def tokenize(self, text):
        return text.split()

    def encode_from_tokens_scheduled(self, tokens):
        values = [[float(len(token)), 1.0] for token in tokens]
        return [[torch.tensor([values]), {"pooled_output": torch.ones(1, 2)}]]


def test_prompts_of_other_lengths_are_repeated_to_one():
    """All tokens equally often, which attention does not notice."""
    ((rows, _),) = along(Words(), "0: a bb\n1: a bb ccc dddd", 2)
    assert rows[0, :, 0].tolist() == [1, 2, 1, 2]
    assert rows[1, :, 0].tolist() == [1, 2, 3, 4]


def test_the_clip_shows_its_prompts(demo):
    """Frames with the same prompt are alike, and the others are painted as by their own."""
    import nodes

    model = demo[0]
    latent = {"samples": torch.zeros(4, 4, 32, 32), "batch_index": [0] * 4}
    two = "0: a dark drawing\n2: a neon drawing"

    @torch.inference_mode()
    def paint(positive):
        negative = encoded(demo[1], "")
        given = (1, 6, 2.0, "euler", "simple", positive, negative, latent, 1.0)
        return nodes.KSampler().sample(model, *given)[0]["samples"]

    found = paint(along(demo[1], two, 4))
    for place, text in ((0, "a dark drawing"), (2, "a neon drawing")):
        expected = paint(encoded(demo[1], text))
        assert tiny.error(found[place : place + 2], expected[place : place + 2]) < 1e-3
    model = tiny.patch(demo[0], references="first", layers="all")
    held = paint(along(demo[1], two, 4))
    assert tiny.error(held[2:], found[2:]) > 0.01


WRONG = {
    "nothing": ("  \n", r"'text': it is empty"),
    "no frame": ("a dark drawing", r"'text': the line 'a dark drawing' comes before any frame"),
    "twice": ("0: a\n0: b", r"'text': frame 0 has two prompts"),
    "beyond": ("0: a\n5: b", r"'text': frame 5 is beyond the clip, whose last frame is 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_text(demo, name):
    text, words = WRONG[name]
    bench.refuses(lambda: along(demo[1], text), match=rf"^CrossFramePrompts: input {words}")


def test_prompts_that_cannot_be_in_one_batch():
    long = " ".join("w" * 7 for _ in range(97))
    bench.refuses(
        lambda: along(Words(), f"0: {long}\n1: a b c d e f g h i j k"),
        match=r"'text': with this text encoder the prompts of the frames 0 and 1 have 97 and 11",
    )


def test_no_clip():
    bench.refuses(lambda: along(None, "0: a"), match=r"'clip': it is empty")
