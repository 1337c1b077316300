"""The model files that the example workflows need, and the settings that suit them."""

from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Family:
    """The models of one family, and the settings that the examples have for them.

    checkpoint, controlnet: the files, as the page's download list names them. size: the width and
    height of frames in pixels. side: the width and height of a square picture.
    """

    name: str
    checkpoint: dict[str, str]
    controlnet: dict[str, str]
    size: tuple[int, int]
    side: int

    @property
    def files(self) -> tuple[dict[str, str], ...]:
        """All files that are to be downloaded."""
        return self.checkpoint, self.controlnet


@dataclass(frozen=True)
class Transformer:
    """The files of one diffusion transformer (DiT), whose parts have loaders of their own.

    model, vae, control: the files, as the page's download list names them. encoders: those of the
    text encoders. kind: what the loader of text encoders calls the family. control: its ControlNet,
    which is a patch of the model, or None.
    """

    name: str
    model: dict[str, str]
    encoders: tuple[dict[str, str], ...]
    kind: str
    vae: dict[str, str]
    control: dict[str, str] | None = None

    @property
    def files(self) -> tuple[dict[str, str], ...]:
        """All files that are to be downloaded."""
        control = () if self.control is None else (self.control,)
        return (self.model, *self.encoders, self.vae, *control)


def _file(directory: str, name: str, folder: str) -> dict[str, str]:
    return {"name": name, "url": f"{HUB}/{folder}/{name}", "directory": directory}


SD15 = Family(
    "SD1.5",
    _file(
        "checkpoints",
        "v1-5-pruned-emaonly-fp16.safetensors",
        "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main",
    ),
    _file(
        "controlnet",
        "control_v11p_sd15_canny_fp16.safetensors",
        "comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main",
    ),
    (768, 432),
    512,
)
SDXL = Family(
    "SDXL",
    _file(
        "checkpoints",
        "sd_xl_base_1.0.safetensors",
        "stabilityai/stable-diffusion-xl-base-1.0/resolve/main",
    ),
    _file(
        "controlnet",
        "diffusers_xl_canny_full.safetensors",
        "lllyasviel/sd_control_collection/resolve/main",
    ),
    (1024, 576),
    1024,
)
# The files, loaders and settings of these two are those of ComfyUI's own templates.
Z_IMAGE_TURBO = Transformer(
    "Z-Image-Turbo",
    _file(
        "diffusion_models",
        "z_image_turbo_bf16.safetensors",
        "Comfy-Org/z_image_turbo/resolve/main/split_files/diffusion_models",
    ),
    (
        _file(
            "text_encoders",
            "qwen_3_4b.safetensors",
            "Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders",
        ),
    ),
    "lumina2",
    _file("vae", "ae.safetensors", "Comfy-Org/z_image_turbo/resolve/main/split_files/vae"),
    _file(
        "model_patches",
        "Z-Image-Turbo-Fun-Controlnet-Union.safetensors",
        "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union/resolve/main",
    ),
)
KONTEXT = Transformer(
    "Flux.1 Kontext",
    _file(
        "diffusion_models",
        "flux1-dev-kontext_fp8_scaled.safetensors",
        "Comfy-Org/flux1-kontext-dev_ComfyUI/resolve/main/split_files/diffusion_models",
    ),
    (
        _file(
            "text_encoders",
            "clip_l.safetensors",
            "comfyanonymous/flux_text_encoders/resolve/main",
        ),
        _file(
            "text_encoders",
            "t5xxl_fp8_e4m3fn_scaled.safetensors",
            "comfyanonymous/flux_text_encoders/resolve/main",
        ),
    ),
    "flux",
    _file(
        "vae",
        "ae.safetensors",
        "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae",
    ),
)


def links(*files: dict[str, str]) -> str:
    """Return a Markdown list of the files that a workflow needs."""
    return "\n".join(
        f"- [{file['name']}]({file['url']}) in *models/{file['directory']}*" for file in files
    )
