# Copyright 2026 The harvest_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A harvest_jax model for `SentenceTransformer(FOLDER, trust_remote_code=True)`: a list of texts, or of videos."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules import InputModule
from transformers import AutoModel, AutoProcessor

VIDEOS = (".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


class HarvestVideoEncoder(InputModule):
    """Embeds texts and videos into one space; the embeddings have unit length.

    A string that ends like a video file (`VIDEOS`) and names a file is a video, other strings are texts, and anything
    else is frames, as the processor takes them. `{"text": ...}` and `{"video": ...}` say which one is meant.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer

    @property
    def modalities(self) -> list[Any]:
        """What can be embedded. Without "message" a list with videos that the library knows and others is refused."""
        return ["text", "video", "message"]

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text, start and end included; a longer one is cut."""
        return int(self.model.config.text_tower["context_length"])

    def get_embedding_dimension(self) -> int:
        """Numbers in an embedding."""
        return int(self.model.config.video_tower["embed_dim"])

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Texts or videos as tensors."""
        named = [one if isinstance(one, dict) else {"video" if is_video(one) else "text": one} for one in inputs]
        kinds = {kind for one in named for kind in one}
        if kinds == {"video"}:
            return dict(self.processor(videos=[one["video"] for one in named]))
        if kinds == {"text"}:
            return dict(self.processor(text=[(prompt or "") + one["text"] for one in named]))
        raise ValueError(f"one call embeds texts or videos, not {', '.join(sorted(map(str, kinds)))}")

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds `sentence_embedding`: float32 [B, D]."""
        if "input_ids" in features:
            embedded = self.model.get_text_features(features["input_ids"])
        else:
            embedded = self.model.get_video_features(features["pixel_values_videos"])
        return features | {"sentence_embedding": embedded}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the model and the processor."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: Any = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> "HarvestVideoEncoder":
        """The module of a folder or of a repository on the Hub; `model_kwargs` can hold the dtype."""
        where = {
            "token": token,
            "cache_dir": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
            "trust_remote_code": trust_remote_code,
        }
        model = AutoModel.from_pretrained(model_name_or_path, **where, **(model_kwargs or {}))
        return cls(model, AutoProcessor.from_pretrained(model_name_or_path, **where, **(processor_kwargs or {})))


def is_video(value: Any) -> bool:
    """Whether an input is a video: frames, or the path of a file that ends like one."""
    if not isinstance(value, str | os.PathLike):
        return True
    return Path(value).suffix.lower() in VIDEOS and os.path.isfile(value)
