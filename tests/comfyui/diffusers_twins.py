"""The models of `tiny` as diffusers models with the same weights."""

import tiny
from diffusers import ControlNetModel, UNet2DConditionModel


def _settings(config: dict) -> dict:
    """What UNet2DConditionModel and ControlNetModel call the entries of a config."""
    widths = tuple(config["model_channels"] * factor for factor in config["channel_mult"])
    settings = {
        "block_out_channels": widths,
        "layers_per_block": config["num_res_blocks"][0],
        "down_block_types": ("CrossAttnDownBlock2D",) * len(widths),
        "transformer_layers_per_block": tuple(config["transformer_depth"]),
        "cross_attention_dim": tiny.CONTEXT,
        "use_linear_projection": config["use_linear_in_transformer"],
        "attention_head_dim": 4,  # diffusers' name for the number of heads
    }
    if "num_head_channels" in config:
        settings["attention_head_dim"] = tuple(w // config["num_head_channels"] for w in widths)
    if config["adm_in_channels"] is not None:
        settings["addition_embed_type"] = "text_time"
        settings["addition_time_embed_dim"] = 256
        settings["projection_class_embeddings_input_dim"] = config["adm_in_channels"]
    return settings


def unet(model, config: dict) -> UNet2DConditionModel:
    """The U-Net of a MODEL made by `tiny.model(config)`."""
    up = ("CrossAttnUpBlock2D",) * len(config["channel_mult"])
    twin = UNet2DConditionModel(up_block_types=up, **_settings(config))
    return _load(twin, model.model.diffusion_model, config, {})


def controlnet(control, config: dict) -> ControlNetModel:
    """The network of a ControlNet made by `tiny.controlnet(config)`."""
    twin = ControlNetModel(**_settings(config))
    names = {"controlnet_mid_block": "middle_block_out.0"}
    for number in range(len(twin.controlnet_down_blocks)):
        names[f"controlnet_down_blocks.{number}"] = f"zero_convs.{number}.0"
    hints = twin.controlnet_cond_embedding
    parts = ["conv_in", *(f"blocks.{number}" for number in range(len(hints.blocks))), "conv_out"]
    for number, part in enumerate(parts):  # ComfyUI counts the activations between them too
        names[f"controlnet_cond_embedding.{part}"] = f"input_hint_block.{2 * number}"
    return _load(twin, control.control_model, config, names)


def _load(twin, network, config: dict, names: dict):
    import comfy.utils

    weights = network.state_dict()
    keys = comfy.utils.unet_to_diffusers(config)
    for name, theirs in names.items():
        keys |= {f"{name}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}
    state = {ours: weights[keys[ours]] for ours in twin.state_dict()}
    twin.load_state_dict(state)
    return twin.requires_grad_(False)
