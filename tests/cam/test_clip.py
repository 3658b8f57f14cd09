"""CLIP's maps with random and rigged weights: what they follow, where they lie, and what is refused."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.cam.activation import class_activation_maps
from torch_svm_seg.cam.clip import CLIPMaps, _positions, load_clip
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.cam.prompts import BACKGROUND, Prompts, read_synonyms
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError

open_clip = pytest.importorskip("open_clip")

NAME = "tiny-clip"
CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
COLOURS = ["red", "green", "blue"]
PRESENT = torch.tensor([True, False, True])


@pytest.fixture(scope="module", autouse=True)
def _configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Add small models to open_clip's, for as long as these tests run."""
    folder = tmp_path_factory.mktemp("models")
    others = {"quick_gelu": True}, {"vision_cfg": {"timm_model_name": "test_vit"}}, {"text_cfg": {"hf_model_name": "x"}}
    for name, other in zip((NAME, f"{NAME}-quickgelu", "of-timm", "of-a-hub"), ({}, *others), strict=True):
        (folder / f"{name}.json").write_text(json.dumps(CONFIG | other))
    paths, known = list(open_clip.factory._MODEL_CONFIG_PATHS), dict(open_clip.factory._MODEL_CONFIGS)
    open_clip.add_model_config(folder)
    yield
    open_clip.factory._MODEL_CONFIG_PATHS[:], open_clip.factory._MODEL_CONFIGS = paths, known


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(open_clip.CLIP(**CONFIG).state_dict(), file)
    return file


def pictures(number: int = 1, height: int = 50, width: int = 70) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255


@pytest.fixture
def clip(weights: Path) -> CLIPMaps:
    return load_clip(NAME, weights, COLOURS)


def rigged(weights: Path) -> CLIPMaps:
    """Return a CLIP whose patches are told by their mean colour alone, as are the texts of the three colours.

    Attention is the same to all patches, values go through as they are, and nothing else does anything.
    """
    maps = load_clip(NAME, weights, COLOURS)
    visual = maps.model.visual
    with torch.no_grad():
        maps.mean.zero_()
        maps.std.fill_(255)
        for parameter in (visual.class_embedding, visual.positional_embedding, visual.conv1.weight):
            parameter.zero_()
        visual.conv1.weight[:3] = torch.eye(3)[:, :, None, None] / 256
        visual.proj.copy_(torch.eye(32))
        for block in visual.transformer.resblocks:
            for parameter in (*block.attn.parameters(), *block.mlp.parameters()):
                parameter.zero_()
        last = visual.transformer.resblocks[-1].attn
        last.in_proj_weight[64:] = torch.eye(32)
        last.out_proj.weight.copy_(torch.eye(32))
        maps.texts.zero_()
        maps.texts[:3, :3] = torch.eye(3)
        maps.texts[3:, 3] = 1  # the background is told by what no image has
    return maps


def stripes(height: int = 64, width: int = 96) -> Tensor:
    """Return an image whose left third is red, the middle green, and the right blue."""
    image = torch.zeros(3, height, width)
    for channel in range(3):
        image[channel, :, channel * width // 3 : (channel + 1) * width // 3] = 255
    return image


# What maps follow


def test_a_map_is_where_the_class_is(weights: Path) -> None:
    gradcam, _ = rigged(weights).explain(stripes()[None], torch.tensor([True] * 3))
    for channel, map in enumerate(gradcam[0]):
        inside = torch.zeros(4, 6, dtype=torch.bool)
        inside[:, 2 * channel : 2 * channel + 2] = True
        assert map[inside].min() > 0.99 and map[~inside].max() == 0


def test_a_map_follows_the_text(weights: Path) -> None:
    maps = rigged(weights)
    before, _ = maps.explain(stripes()[None], PRESENT)
    with torch.no_grad():
        maps.texts[[0, 2]] = maps.texts[[2, 0]]
    after, _ = maps.explain(stripes()[None], PRESENT)
    torch.testing.assert_close(after, before.flip(1))
    assert not torch.allclose(after, before)


def test_what_speaks_for_another_class_counts_against_this_one(weights: Path) -> None:
    """The softmax: purple patches are blue's where the image also shows red, and red's where it shows blue."""
    maps, image = rigged(weights), stripes()
    image[0, :, 80:], image[2, :, 80:] = 255, 200
    both, _ = maps.explain(image[None], PRESENT)
    alone, _ = maps.explain(image[None], torch.tensor([True, False, False]))
    assert both[0, 0, :, 5].max() < alone[0, 0, :, 5].min()


def test_a_class_that_the_softmax_is_sure_not_to_see_has_its_map_all_the_same(weights: Path) -> None:
    maps = rigged(weights)
    with torch.no_grad():
        maps.texts[3:] = F.normalize(torch.eye(32)[:3].sum(0), dim=0)
        maps.model.logit_scale.fill_(4.1)  # the colours' probabilities are about exp(-25)
    found, _ = maps.explain(stripes()[None], PRESENT)
    assert found[0, 0, :, :2].min() > 0.99 and found[0, 1, :, 4:].min() > 0.99


def test_the_walk_of_the_attention_stays_in_the_boxes_of_active_regions(weights: Path, monkeypatch: Any) -> None:
    maps, seen = rigged(weights), []
    monkeypatch.setattr("torch_svm_seg.cam.clip.spread_by", lambda affinity, given: seen.append(given) or given)
    found = maps.activation_maps(stripes(), PRESENT, flip=False)
    assert found.shape == (2, 4, 6) and found[0, :, :2].min() > 0.99 and found[0, :, 2:].max() == 0
    monkeypatch.undo()
    spread = maps.activation_maps(stripes(), PRESENT, flip=False)
    torch.testing.assert_close(spread, torch.ones_like(spread))  # attention that is the same everywhere
    assert torch.equal(found, seen[0][0])


# The network as open_clip has it


def test_embeddings_attention_and_gradient_are_open_clips(clip: CLIPMaps) -> None:
    """At the size the model was built for, where open_clip needs no other positions."""
    images, visual = pictures(2, 64, 64), clip.model.visual
    inputs = (images - clip.mean) / clip.std
    tokens: list[Tensor] = []
    weights: list[Tensor] = []
    for block in visual.transformer.resblocks:
        block.ln_1.register_forward_hook(lambda module, given, output: tokens.append(output))
        block.attn.register_forward_hook(lambda module, given, output: weights.append(output[1]), always_call=True)
    with torch.no_grad():
        for block in visual.transformer.resblocks:
            block.attention = lambda q_x, k_x=None, v_x=None, attn_mask=None, own=block: own.attn(q_x, q_x, q_x)[0]
    visual.requires_grad_()
    features = visual.transformer(visual._embeds(inputs))
    embedding = visual.ln_post(features)[:, 1:].mean(1) @ visual.proj
    texts = torch.cat([clip.texts[:3][PRESENT], clip.texts[3:]])
    scores = (clip.model.logit_scale.exp() * F.normalize(embedding, dim=1) @ texts.T).softmax(1)
    own_tokens, own_weights = tokens[-1], torch.stack(weights).mean(0)[:, 1:, 1:]
    expected = []
    for number in range(2):
        (gradient,) = torch.autograd.grad(scores[:, number].sum(), own_tokens, retain_graph=True)
        map = torch.einsum("bc,bnc->bn", gradient[:, 1:].mean(1), own_tokens[:, 1:]).relu()
        expected.append((map / map.amax(1, keepdim=True).clamp_min(1e-30)).unflatten(1, (4, 4)))
    visual.requires_grad_(False)
    maps, attention = clip.explain(images, PRESENT)
    torch.testing.assert_close(maps, torch.stack(expected, 1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(attention, own_weights)


def test_texts_are_means_of_templates_of_length_1(weights: Path) -> None:
    templates = ("a photo of a {}.", "a drawing of a {}.")
    maps = load_clip(NAME, weights, ["bird", "cat"], Prompts(templates))
    sentences = ["a photo of a bird avian.", "a drawing of a bird avian."]
    with torch.no_grad():
        each = maps.model.encode_text(open_clip.get_tokenizer(NAME)(sentences))
    expected = F.normalize(F.normalize(each, dim=1).mean(0), dim=0)
    torch.testing.assert_close(maps.texts[0], expected)
    assert maps.texts.shape == (2 + len(BACKGROUND), 32)


def test_a_batch_gives_what_its_images_give_alone(clip: CLIPMaps) -> None:
    clip, images = clip.double(), pictures(3).double()
    together, attention = clip.explain(images, PRESENT)
    alone = [clip.explain(image[None], PRESENT) for image in images]
    torch.testing.assert_close(together, torch.cat([maps for maps, _ in alone]))
    torch.testing.assert_close(attention, torch.cat([weights for _, weights in alone]))


@pytest.mark.parametrize("size", [(75, 98), (16, 150), (9, 7), (1, 1)])
def test_images_of_any_size_have_a_cell_for_each_patch(clip: CLIPMaps, size: tuple[int, int]) -> None:
    maps = clip.activation_maps(pictures(1, *size)[0], PRESENT)
    assert maps.shape == (2, *(-(-side // 16) for side in size))
    assert maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1 and not maps.requires_grad


def test_positions_are_interpolated_and_the_class_tokens_own_stays(clip: CLIPMaps) -> None:
    visual = clip.model.visual
    own = visual.positional_embedding.clone()
    with torch.no_grad():  # rows and columns as they lie on the grid
        visual.positional_embedding.zero_()
        visual.positional_embedding[0] = 7
        visual.positional_embedding[1:, 0] = torch.arange(4.0).repeat_interleave(4)
        visual.positional_embedding[1:, 1] = torch.arange(4.0).repeat(4)
    found = _positions(visual, (8, 12))
    assert found.shape == (1 + 8 * 12, 32) and (found[0] == 7).all()
    rows, columns = found[1:, :2].T.unflatten(1, (8, 12))
    assert (rows.diff(dim=0) > 0).all() and rows.diff(dim=1).abs().max() < 1e-4
    assert (columns.diff(dim=1) > 0).all() and columns.diff(dim=0).abs().max() < 1e-4
    assert torch.equal(_positions(visual, (4, 4)), visual.positional_embedding)
    assert visual.positional_embedding.shape == own.shape


def test_maps_of_the_mirror_image_are_the_mirrored_maps(clip: CLIPMaps) -> None:
    straight, mirrored = (
        class_activation_maps(clip, image, [1, 3], [1.0]) for image in (pictures()[0], pictures()[0].flip(-1))
    )
    torch.testing.assert_close(mirrored.maps.flip(-1), straight.maps, atol=1e-4, rtol=0)
    assert straight.classes == (1, 3) and straight.background is None


def test_nothing_is_trained_and_no_gradient_is_left(clip: CLIPMaps) -> None:
    clip.activation_maps(pictures()[0], PRESENT)
    assert not any(p.requires_grad or p.grad is not None for p in clip.parameters())
    assert not any(module._forward_hooks for module in clip.modules())


# Prompts


def test_words_of_the_background_that_are_classes_are_left_out(weights: Path) -> None:
    maps = load_clip(NAME, weights, ["cat", "grass", "sky"])
    assert len(maps.texts) == 3 + len(BACKGROUND) - 2
    with pytest.raises(InputError, match="all words for the background are names of classes"):
        Prompts(background=("cat",)).background_beside(["cat"])


@pytest.mark.parametrize("prompts", [{"templates": ("a cat",)}, {"templates": ()}, {"background": ()}])
def test_prompts_without_parts_are_refused(prompts: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InputError, match="expected"):
        Prompts(**prompts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["cat"]', "expected an object of texts"),
        ('{"cat": 3}', "expected an object"),
        ('{"cow": "x"}', "unknown class 'cow'"),
    ],
)
def test_synonyms_that_are_none_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "synonyms.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_synonyms(tmp_path / "synonyms.json", ["cat", "dog"])


# Files and names that do not fit


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"patch_size": 8}}
    torch.save(open_clip.CLIP(**other).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=rf"other.pt: not the weights of CLIP {NAME}: .*of another shape.*conv1"):
        load_clip(NAME, tmp_path / "other.pt", COLOURS)


def test_openais_files_are_read_by_the_models_with_their_activation(weights: Path, tmp_path: Path) -> None:
    numbers = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save(torch.load(weights, weights_only=True) | numbers, tmp_path / "openai.pt")
    with pytest.raises(InputError, match=f"which are of {NAME}-quickgelu"):
        load_clip(NAME, tmp_path / "openai.pt", COLOURS)
    quick = load_clip(f"{NAME}-quickgelu", tmp_path / "openai.pt", COLOURS)
    assert not torch.equal(quick.texts, load_clip(NAME, weights, COLOURS).texts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-of-nobody", "open_clip has no model of that name"),
        ("RN50", "expected a plain transformer"),
        ("coca_ViT-B-32", "expected a plain transformer"),
        ("of-timm", "expected a plain transformer"),
        ("of-a-hub", "expected a plain transformer with open_clip's own tokenizer"),
        ("hf-hub:someone/clip", "a network of a hub is never fetched"),
        ("local-dir:/tmp", "a network of a hub is never fetched"),
    ],
)
def test_other_models_are_refused(weights: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_clip(name, weights, COLOURS)


def test_without_open_clip_the_package_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"package open_clip is not installed: .*pip install open_clip_torch"):
        load_clip(NAME, weights, COLOURS)


# The command


def cams(root: Path, out: Path, *more: str) -> int:
    return main(["cams", "--root", str(root), "--scales", "1", "--out", str(out), *more])


def test_maps_are_written_and_depend_on_what_clip_is_told(tiny_voc: Path, tmp_path: Path, weights: Path) -> None:
    command = ["--clip", NAME, "--clip-weights", str(weights)]
    (tmp_path / "synonyms.json").write_text('{"cat": "kitten"}')
    told = {
        "default": [],
        "templates": ["--clip-templates", "a photo of a {}.", "one {}."],
        "background": ["--clip-background", "floor"],
        "synonyms": ["--clip-synonyms", str(tmp_path / "synonyms.json")],
    }
    found = {}
    for name, flags in told.items():
        assert cams(tiny_voc, tmp_path / name, *command, *flags) == 0
        found[name] = read_cams(tmp_path / name, "2008_000001", (60, 80), VOC_CLASSES)
        assert found[name].classes == (8, 15) and found[name].maps.shape == (2, 15, 20)
    assert all(not torch.equal(found["default"].maps, found[name].maps) for name in told if name != "default")
    assert cams(tiny_voc, tmp_path / "default", *command) == 0  # what is there stays
    assert cams(tiny_voc, tmp_path / "default", *command, *told["background"]) == 2  # of other settings


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--checkpoint and --clip: expected one of them"),
        (["--clip", NAME, "--checkpoint", "a.pt"], "--checkpoint and --clip: expected one of them"),
        (["--clip", NAME], "--clip: needs --clip-weights FILE; nothing is downloaded"),
        (["--clip", NAME, "--clip-weights", "openai"], "openai: No such file or directory"),
        (["--checkpoint", "a.pt", "--clip-background", "sky"], "--clip-background: only with --clip"),
        (["--clip", NAME, "--clip-weights", "WEIGHTS", "--clip-templates", "cat"], "template 'cat': expected {}"),
        (["--clip", NAME, "--clip-weights", "WEIGHTS", "--clip-box", "nan"], "box_threshold: expected 0 to 1, got nan"),
    ],
)
def test_flags_that_cannot_be_are_named(
    tiny_voc: Path, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    given = [str(weights) if flag == "WEIGHTS" else flag for flag in flags]
    assert cams(tiny_voc, tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
