"""SigLIP against transformers' `SiglipModel`, from its own files; the tokenizers against transformers' own.

B/16 is the published architecture; "small" has what B/16 has not: an MLP of another width, as So400m, and towers of
different widths, as SigLIP 2's giant.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")
pytest.importorskip("transformers", reason="the extra `parity` is not installed: make parity")

from transformers import SiglipConfig, SiglipModel  # noqa: E402
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer  # noqa: E402

import harvest_jax  # noqa: E402
from harvest_jax.input.file_tokenizer import FileTokenizer  # noqa: E402
from harvest_jax.weights.families.siglip import BIG_VISION_SIGLIP  # noqa: E402
from harvest_jax.weights.folder import load_model, open_model  # noqa: E402
from harvest_jax.weights.import_checkpoint import import_checkpoint  # noqa: E402
from harvest_jax.weights.translate import to_family  # noqa: E402
from tests.helpers.tokenizer_files import write_gemma, write_sentencepiece  # noqa: E402
from tests.parity import compare  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {
    "B/16": {},
    "small": {
        "vision_config": {
            "hidden_size": 96,
            "intermediate_size": 400,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 250,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 600,
            "max_position_embeddings": 16,
            "projection_size": 96,
        },
    },
}
TEXTS = ["a dog jumps", "two dogs, and a log!", ""]


@pytest.fixture(scope="module", params=SIZES)
def siglip(request, tmp_path_factory):
    """(name, transformers' model with random numbers in every parameter, the folder it wrote with a tokenizer)."""
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(**SIZES[request.param])).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            tensor.normal_(1.0, 0.3)
        elif name.endswith("bias") or tensor.ndim == 1:
            tensor.normal_(0.0, 0.1)
        elif "embedding" in name:
            tensor.normal_(0.0, 0.02)  # so small that another epsilon of the first norm shows
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    side = model.config.vision_config.image_size
    pictures = {"size": {"height": side, "width": side}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    write_sentencepiece(folder / "tokenizer.json")
    return request.param, model, folder


@pytest.fixture(scope="module")
def imported(siglip, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "model"
    assert import_checkpoint(siglip[2], out)["family"] == "Hugging Face SigLIP"
    return out


def test_embeddings_and_logits(siglip, imported, measured):
    size, theirs, _ = siglip
    ours = harvest_jax.load(imported)
    side = ours.config.video.image_size
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, side, side, 3), np.uint8)
    pixels = torch.from_numpy((frames[:, 0] / 127.5 - 1).transpose(0, 3, 1, 2)).float()
    ids = torch.from_numpy(ours.tokenizer(TEXTS, ours.config.text.context_length)).long()
    with torch.inference_mode():
        found = theirs(input_ids=ids, pixel_values=pixels)
    image, text = ours.encode_clips(frames), ours.encode_text(TEXTS)
    for tower, embedded, their in (("image", image, found.image_embeds), ("text", text, found.text_embeds)):
        difference = compare.embedding_difference(embedded, their.numpy())
        measured(f"SigLIP {size}", f"{tower} embedding", "transformers", difference, compare.EMBEDDING_BOUND)
    _, params = load_model(imported)
    logits = np.exp(params["logit_scale"]) * image @ text.T + params["logit_bias"]
    difference = float(np.abs(logits - found.logits_per_image.numpy()).max() / np.abs(logits).max())
    measured(f"SigLIP {size}", "logits, relative", "transformers", difference, compare.BLOCK_BOUND)


def test_the_sigmoid_loss_is_transformers_own(siglip, imported):
    """`SiglipModel`'s loss of the same pairs."""
    from harvest_jax.train.losses import sigmoid_loss

    if siglip[0] != "small":
        pytest.skip("one size is enough")
    theirs, rng = siglip[1], np.random.default_rng(1)
    pixels = torch.from_numpy(rng.normal(0, 1, (4, 3, 56, 56)).astype(np.float32))
    ids = torch.from_numpy(rng.integers(0, 600, (4, 16)))
    with torch.inference_mode():
        found = theirs(input_ids=ids, pixel_values=pixels, return_loss=True)
    _, params = load_model(imported)
    arrays = found.image_embeds.numpy(), found.text_embeds.numpy(), params["logit_scale"], params["logit_bias"]
    ours, _ = sigmoid_loss(*map(jnp.asarray, arrays))
    assert float(ours) == pytest.approx(float(found.loss), rel=1e-5)


def test_big_visions_form_gives_the_same_bits(siglip, imported, tmp_path):
    if siglip[0] != "small":
        pytest.skip("one size is enough")
    config, ours = open_model(imported)
    theirs = to_family(ours, BIG_VISION_SIGLIP, config)
    np.savez(tmp_path / "x.npz", **{f"params/{name}": theirs.read(name) for name in theirs.entries})
    # heads of So400m and the giant are in big_vision's shapes; 96 / 4 here
    import_checkpoint(tmp_path / "x.npz", tmp_path / "out", tokenizer=imported / "tokenizer.json")
    again, other = open_model(tmp_path / "out")
    assert again == config
    for name in ours.entries:
        assert ours.read(name).tobytes() == other.read(name).tobytes(), name


STRINGS = ["a dog jumps", "A DOG,  jumps!!", "dogs\tand\nlogs", "a " * 40, "dog?dog", "<eos> a dog", "(c) 2024, a+b"]


def test_siglip_2_ids_are_those_of_transformers(tmp_path):
    """Its tokenizer adds lower case to Gemma's."""
    path = write_gemma(tmp_path / "tokenizer.json")
    model = json.loads(path.read_text())["model"]
    theirs = Siglip2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    ours = FileTokenizer(path, "", 64)
    for text in STRINGS:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text


def test_siglip_ids_are_those_of_transformers(tmp_path):
    """From one sentencepiece model, of which a tokenizer.json of T5's form is made here.

    Not compared: texts that are empty or begin with a space.
    """
    sentencepiece = pytest.importorskip("sentencepiece")
    import tokenizers
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    lines = "a dog jumps over a log\ntwo dogs run\nthe log is old\na man and a woman dance in the rain 2024\n" * 20
    (tmp_path / "lines.txt").write_text(lines)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    known = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    pieces = [(known.id_to_piece(number), known.get_score(number)) for number in range(known.get_piece_size())]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    theirs = SiglipTokenizer(str(tmp_path / "spiece.model"))
    ours = FileTokenizer(tmp_path / "tokenizer.json", "", 64)
    for text in STRINGS:
        expected = theirs(text, padding="max_length", truncation=True, max_length=16)["input_ids"]
        assert ours([text], 16)[0].tolist() == expected, text
