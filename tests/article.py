"""The article's procedure, written down plainly: the reference that hosts are compared with.

Nothing of crossframe is used here, and no attention code of diffusers: projections are taken
from the model's layers, the rest is a softmax in plain torch.

    article = ArticleProcedure(unet)
    article.install()
    for frame in range(frames):
        article.start_frame(frame)
        ...  # any number of U-Net calls, the same number for every frame
    article.remove()

On the first frame every self-attention layer of the up blocks STOREs its input at each step.
On each later frame it LOADs the first frame's and the previous frame's input of the same step
and takes keys and values from both, one after the other, instead of from its own input.
"""

import torch


def attention(attn, hidden_states, key_value_states):
    """Multi-head attention with the weights of a diffusers `Attention` module.

    hidden_states: (rows, n, channels); key_value_states: (rows, m, channels).
    """
    rows, n, _ = hidden_states.shape
    query = attn.to_q(hidden_states)
    key = attn.to_k(key_value_states)
    value = attn.to_v(key_value_states)
    width = query.shape[-1] // attn.heads

    def heads_first(projected):
        return projected.reshape(rows, -1, attn.heads, width).permute(0, 2, 1, 3)

    query, key, value = heads_first(query), heads_first(key), heads_first(value)
    scores = torch.einsum("rhnc,rhmc->rhnm", query, key) * width**-0.5
    mixed = torch.einsum("rhnm,rhmc->rhnc", scores.softmax(dim=-1), value)
    mixed = mixed.permute(0, 2, 1, 3).reshape(rows, n, -1)
    return attn.to_out[1](attn.to_out[0](mixed))


def first_and_previous(frame):
    return (0, frame - 1) if frame > 0 else (0,)


class ArticleProcessor:
    """STORE and LOAD for one layer: the inputs of all frames so far, by (frame, step)."""

    def __init__(self, procedure):
        self.procedure = procedure
        self.stored = {}

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        if encoder_hidden_states is not None:
            raise RuntimeError("attn1 was called with foreign keys and values")
        frame, step = self.procedure.frame, self.procedure.step
        self.stored[frame, step] = hidden_states.clone()
        acts = self.procedure.steps is None or step in self.procedure.steps
        references = self.procedure.references(frame) if acts else (frame,)
        key_value_states = torch.cat([self.stored[other, step] for other in references], dim=1)
        return attention(attn, hidden_states, key_value_states)


class ArticleProcedure:
    """The procedure on one `UNet2DConditionModel`; one frame per call, with any number of rows.

    layers_prefixes: beginnings of the names of the layers it acts in.
    references: which frames a frame attends to; the article's choice unless told otherwise.
    steps: the steps in which they do, all unless told otherwise.
    """

    def __init__(
        self, unet, layers_prefixes=("up_blocks",), references=first_and_previous, steps=None
    ):
        self.unet = unet
        self.layers_prefixes = tuple(layers_prefixes)
        self.references = references
        self.steps = steps
        self.frame = 0
        self.step = -1

    def start_frame(self, frame):
        self.frame = frame
        self.step = -1

    def install(self):
        self.saved = {
            name: module.processor
            for name, module in self.unet.named_modules()
            if name.endswith("attn1") and name.startswith(self.layers_prefixes)
        }
        if not self.saved:
            raise ValueError(f"no attn1 begins with any of {self.layers_prefixes}")
        for name in self.saved:
            self.unet.get_submodule(name).processor = ArticleProcessor(self)
        self.counter = self.unet.register_forward_pre_hook(self._count)

    def remove(self):
        self.counter.remove()
        for name, processor in self.saved.items():
            self.unet.get_submodule(name).processor = processor

    def _count(self, unet, args):
        self.step += 1
