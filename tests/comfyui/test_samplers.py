"""Every sampler of ComfyUI, in both orders: the same frames, whatever noise it adds on its way."""

import pytest
import tiny
import torch

# Known to every version of ComfyUI that the pack supports; a test below compares with the list.
DETERMINISTIC = [
    "euler",
    "euler_cfg_pp",
    "heun",
    "heunpp2",
    "exp_heun_2_x0",
    "dpm_2",
    "lms",
    "dpm_fast",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
STOCHASTIC = [
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "exp_heun_2_x0_sde",
    "dpm_2_ancestral",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
]
REFUSED_FRAME_BY_FRAME = ["dpm_adaptive"]
FRAMES = 3


def test_the_lists_are_comfyuis():
    import comfy.samplers

    known = {*DETERMINISTIC, *STOCHASTIC, *REFUSED_FRAME_BY_FRAME}
    assert known == set(comfy.samplers.SAMPLER_NAMES), "sort the new samplers in, and try them"


def stock_with_noise(model, positive, negative, latent, sampler, frame_noise):
    """SamplerCustomAdvanced with what `tiny.frame_ksampler` sets."""
    from comfy.samplers import CFGGuider, KSampler, sampler_object
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
    from crossframe.nodes.noise import CrossFrameNoise

    settings = tiny.SAMPLING
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(settings["cfg"])
    noise = CrossFrameNoise.execute(Noise_RandomNoise(settings["seed"]), frame_noise).args[0]
    schedule = KSampler(
        model,
        settings["steps"],
        model.load_device,
        sampler,
        settings["scheduler"],
        settings["denoise"],
    )
    inputs = (noise, guider, sampler_object(sampler), schedule.sigmas, latent)
    return SamplerCustomAdvanced.execute(*inputs).args[0]["samples"]


@pytest.mark.parametrize("frame_noise", ["different per frame", "same for every frame"])
@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC])
def test_both_orders_give_the_same_frames(sd15, prompts, sampler, frame_noise):
    model = tiny.patch(sd15, frames_per_batch=2)
    batch, frames = (
        order(model, *prompts, tiny.clip(FRAMES), sampler, frame_noise=frame_noise)
        for order in (stock_with_noise, tiny.frame_ksampler)
    )
    assert torch.isfinite(frames).all()
    assert tiny.error(batch, frames) < 1e-4


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_one_noise_for_every_frame_holds_on_the_way(sd15, prompts, sampler):
    """Equal frames stay equal exactly if all noise that is added is the same."""
    from crossframe.hosts.frame_noise import DIFFERENT, SAME

    model = tiny.patch_own(sd15, frames_per_batch=2)
    still = {"samples": tiny.clip(1)["samples"].repeat(FRAMES, 1, 1, 1)}
    for order in (stock_with_noise, tiny.frame_ksampler):
        same = order(model, *prompts, still, sampler, frame_noise=SAME)
        assert tiny.error(same[1:], same[:1].expand(FRAMES - 1, -1, -1, -1)) < 1e-4
        other = order(model, *prompts, still, sampler, frame_noise=DIFFERENT)
        assert tiny.error(other[1:], same[1:]) > 0.1
        assert tiny.error(other[1], other[2]) > 0.1


@pytest.mark.parametrize("frame_by_frame", [False, True])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_frames_that_start_alike_get_noise_of_their_own(sd15, prompts, sampler, frame_by_frame):
    """What is added on the way differs between frames where the first noise does, if barely."""
    from comfy.samplers import CFGGuider, sampler_object
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
    from crossframe.nodes.sampling import CrossFrameSampler

    class NearlyOneNoise:
        seed = 3

        def generate_noise(self, latent):
            draw = torch.randn(1, 4, tiny.SIZE, tiny.SIZE, generator=torch.manual_seed(3))
            return draw + 1e-6 * torch.arange(FRAMES).view(-1, 1, 1, 1)

    guider = CFGGuider(tiny.patch_own(sd15))
    guider.set_conds(*prompts)
    still = {"samples": tiny.clip(1)["samples"].repeat(FRAMES, 1, 1, 1)}
    node = CrossFrameSampler if frame_by_frame else SamplerCustomAdvanced
    sigmas = torch.tensor([6.0, 3.0, 1.0])
    painted = node.execute(NearlyOneNoise(), guider, sampler_object(sampler), sigmas, still)
    one, two, three = painted.args[0]["samples"]
    assert min(tiny.error(one, two), tiny.error(two, three), tiny.error(one, three)) > 0.1


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_the_first_frame_is_the_stock_samplers(sd15, prompts, sampler):
    """Without another frame to attend to, the pack changes nothing: not the noise either."""
    clip = tiny.clip(FRAMES)
    first = {"samples": clip["samples"][:1]}
    stock = tiny.ksampler(sd15, *prompts, first, sampler)
    assert tiny.error(tiny.ksampler(tiny.patch(sd15), *prompts, clip, sampler)[:1], stock) < 1e-4


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_noise_goes_by_seed_and_frame(sd15, prompts, sampler):
    model = tiny.patch_own(sd15)
    clip = tiny.clip(FRAMES)
    one = tiny.ksampler(model, *prompts, clip, sampler)
    assert torch.equal(tiny.ksampler(model, *prompts, clip, sampler), one)
    more = tiny.ksampler(model, *prompts, tiny.clip(2 * FRAMES), sampler)
    assert tiny.error(more[:1], one[:1]) < 1e-4
    assert tiny.error(tiny.ksampler(model, *prompts, clip, sampler, seed=4), one) > 0.1


def test_noise_that_another_node_draws_is_left_to_it(sd15, prompts):
    """A SAMPLER that brings a noise_sampler keeps it."""
    import comfy.samplers

    calls = []

    def silent(sigma, sigma_next):
        calls.append(float(sigma))
        return torch.zeros(FRAMES, 4, tiny.SIZE, tiny.SIZE)

    guider = comfy.samplers.CFGGuider(tiny.patch(sd15))
    guider.set_conds(*prompts)
    sampler = comfy.samplers.ksampler("euler_ancestral", {"noise_sampler": silent})
    latent = tiny.clip(FRAMES)["samples"]
    guider.sample(torch.randn_like(latent), latent, sampler, torch.tensor([6.0, 3.0, 1.0]), seed=1)
    assert calls == [6.0, 3.0]
