"""Captions of a chunk's newest frame by a vision-language model, for chunks without a prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from lyra_core.errors import BackendUnavailable

EXAMPLE = "Qwen/Qwen3-VL-4B-Instruct"
INSTRUCTION = (
    "Write one English paragraph of 80 to 100 words that describes this view of a static scene for a video generator whose camera "
    "moves through it. Name the visible objects, where they stand, their materials and colours, the light and the style of the "
    "place, and say what plausibly continues beyond the edges of the view in the same style. Nothing moves: no people, no "
    "animals, no traffic. Do not mention the picture, the camera, doubts or these instructions. Answer with the paragraph alone."
)
NEW_TOKENS = 160


def check_captioner(name: str) -> None:
    """Require the model's files: a local folder, or a hub id in the hub's cache.

    Raises:
        BackendUnavailable: they are not there, or not of a model that reads pictures and writes text.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BackendUnavailable("lyra2 captioner", reason=f"model {name!r} is neither a folder nor in the hub's cache",
                                 install=f"hf download {name} (or another vision-language model, as {EXAMPLE})") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        reason = f"model {name!r} is of type {config.model_type!r}, which writes no text about pictures"
        raise BackendUnavailable("lyra2 captioner", reason=reason, install=f"hf download {EXAMPLE} and captioner: {EXAMPLE}")


class Captioner:
    """A vision-language model that rests on the CPU and visits the device to write a caption; greedy, so the same every time."""

    def __init__(self, name: str, *, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """Load the model.

        Raises:
            BackendUnavailable: as ``check_captioner``.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        check_captioner(name)
        self.device = device
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        try:
            self._processor: Any = AutoProcessor.from_pretrained(name, local_files_only=True)
            self._model: Any = AutoModelForImageTextToText.from_pretrained(name, local_files_only=True, dtype=dtype).eval()
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BackendUnavailable("lyra2 captioner", reason=f"{name!r}: {reason}", install=f"hf download {name}") from error

    @torch.no_grad()
    def caption(self, rgb: np.ndarray) -> str:
        """Return a caption of a frame (H, W, 3) uint8."""
        from lyra_core.generate.lyra2.encoders import visiting

        content = [{"type": "image", "image": Image.fromarray(rgb)}, {"type": "text", "text": INSTRUCTION}]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True,
            return_tensors="pt",
        ).to(self.device)
        with visiting(self._model, self.device):
            tokens = self._model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        written = tokens[:, inputs["input_ids"].shape[1] :]
        return " ".join(self._processor.batch_decode(written, skip_special_tokens=True)[0].split())
