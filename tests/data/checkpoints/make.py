"""Makes the files of this folder, with the real writers, from OpenAI's own module of CLIP in a tiny size.

    python make.py archive NAME.pt CLIP_MODEL.PY    a TorchScript archive as the published ones, some weights in fp16
    python make.py state_dict NAME.pth              a dict within a training's dict, with bfloat16 and a strided view

CLIP_MODEL.PY is `clip/model.py` of openai-clip 1.0.1 (loaded by its path: the package needs torchvision).
clip_torch1.7.pt was made with torch 1.7.1 on Python 3.8, the time of the published files; clip_torch2.13.pt and
wrapped.pth with torch 2.13.0. The numbers follow from the names: see `pattern`.
"""

import importlib.util
import sys
import zlib

import numpy as np
import torch


def pattern(name, shape):
    """Numbers that tell each tensor and place from the others, exact in float16 and bfloat16."""
    size = int(np.prod(shape))
    return (((np.arange(size) * 7 + zlib.crc32(name.encode())) % 251 - 125) / 64).astype(np.float32).reshape(shape)


def archive(out, model_file):
    spec = importlib.util.spec_from_file_location("model", model_file)
    clip = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(clip)
    model = clip.CLIP(8, 8, 1, 64, 4, 6, 24, 16, 1, 2)
    model.visual = clip.VisionTransformer(8, 4, 16, 1, 1, 8)  # narrower than CLIP's constructor lets it be
    for name, value in {"input_resolution": 8, "context_length": 6, "vocab_size": 24}.items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(pattern(name, tuple(parameter.shape))))
    example = (torch.zeros(1, 3, 8, 8), torch.zeros(1, 6, dtype=torch.int64))
    traced = torch.jit.trace(model.eval(), example, check_trace=False)
    clip.convert_weights(model)  # the traced module shares the parameters; old torch has no fp16 on the CPU to trace in
    torch.jit.save(traced, out)


def state_dict(out):
    shapes = {"ln.weight": (5,), "conv.weight": (4, 3, 2, 2), "proj": (6, 4), "logit_scale": ()}
    tensors = {f"module.{name}": torch.from_numpy(pattern(name, shape)) for name, shape in shapes.items()}
    tensors["module.conv.weight"] = tensors["module.conv.weight"].bfloat16()
    tensors["module.proj"] = torch.nn.Parameter(tensors["module.proj"].t().contiguous().t())  # in the other order
    tensors["module.half"] = torch.from_numpy(pattern("half", (3, 5)))[1:, ::2].half()
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    torch.save(
        {"epoch": 3, "name": "tiny", "state_dict": tensors, "optimizer": optimizer, "size": torch.Size([2])}, out
    )


if __name__ == "__main__":
    {"archive": archive, "state_dict": state_dict}[sys.argv[1]](*sys.argv[2:])
