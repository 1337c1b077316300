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


def links(*files: dict[str, str]) -> str:
    """Return a Markdown list of the files that a workflow needs."""
    return "\n".join(
        f"- [{file['name']}]({file['url']}) in *models/{file['directory']}*" for file in files
    )
