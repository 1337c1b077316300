"""Latents come out in the precision and on the device that the stock nodes use."""

import bench
import pytest
import tiny
import torch


@pytest.fixture(params=[False, True], ids=["fp32", "fp16"])
def fp16(request, monkeypatch):
    """ComfyUI's option --fp16-intermediates."""
    import comfy.model_management
    from comfy.cli_args import args

    if not hasattr(comfy.model_management, "intermediate_dtype"):
        pytest.skip("this ComfyUI has no such option")
    monkeypatch.setattr(args, "fp16_intermediates", request.param)
    return request.param


@pytest.fixture(params=[torch.float32, torch.float16])
def latent(request):
    latent = tiny.clip(3)
    return {**latent, "samples": latent["samples"].to(request.param)}


def check_same(ours, stock):
    assert ours.dtype == stock.dtype
    assert ours.device == stock.device
    assert tiny.error(ours.float(), stock.float()) < (1e-4 if ours.dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("denoise", [0.7, 0.0])
def test_ksampler(sd15, prompts, fp16, latent, denoise):
    model = tiny.patch(sd15)
    ours, stock = (
        sample(model, *prompts, latent, steps=2, denoise=denoise)
        for sample in (tiny.frame_ksampler, tiny.ksampler)
    )
    check_same(ours, stock)
    assert stock.dtype == (torch.float16 if fp16 else torch.float32)


@pytest.mark.parametrize("sigmas", [[6.0, 2.0, 0.5], []])
def test_both_outputs_of_the_custom_sampler(sd15, prompts, fp16, latent, sigmas):
    guider = bench.guider(tiny.patch(sd15), prompts)
    noise = bench.clip_noise(1, tiny.SAME)
    assert noise.generate_noise(latent).dtype == latent["samples"].dtype
    ours, stock = (
        bench.custom_output(guider, "euler", sigmas, latent, noise, frame_by_frame=order).args
        for order in (True, False)
    )
    for one, other in zip(ours[:2], stock):
        check_same(one["samples"], other["samples"])


def test_a_resumed_run(sd15, prompts, fp16, monkeypatch, tmp_path):
    """Finished frames that are read from the disk equal those that were painted."""
    import folder_paths
    from crossframe.hosts.comfy.orders import sampler_nodes
    from crossframe.hosts.comfy.page.notes import Notes
    from crossframe.hosts.comfy.state.record import Record
    from crossframe.hosts.comfy.state.search import UNFINISHED

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(sampler_nodes, "open_record", lambda *_: Record("run", Notes()))
    monkeypatch.setattr(Record, "discard", lambda self: None)
    settings = {"steps": 2, "resume": True}
    first = tiny.frame_ksampler(tiny.patch(sd15), *prompts, tiny.clip(3), **settings)
    assert list((tmp_path / UNFINISHED / "run").glob("latents_*"))
    again = tiny.frame_ksampler(tiny.patch(sd15), *prompts, tiny.clip(3), **settings)
    assert torch.equal(again, first)
    assert again.dtype == (torch.float16 if fp16 else torch.float32)


def test_the_demos_autoencoder(fp16):
    """It is ComfyUI's own class, which knows the option."""
    from crossframe.hosts.comfy.demo.files import FOLDER
    from crossframe.hosts.comfy.demo.model import load_vae

    vae = load_vae(FOLDER)
    latents = vae.encode(torch.rand(1, 64, 64, 3))
    expected = torch.float16 if fp16 else torch.float32
    assert latents.dtype == vae.decode(latents).dtype == expected
