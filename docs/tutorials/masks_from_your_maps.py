# # Masks from your own maps
#
# You have class activation maps, of whatever method, and want pseudo masks. All that is needed is a folder of images,
# a file of maps for each and the names of the classes. No ground truth takes part.

import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from torch_svm_seg.cam.activation import ActivationMaps, constant_background, make_seed
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.expand import main as expand
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.evaluation.metrics import SegmentationScore

folder = Path(tempfile.mkdtemp())
item = embedded_sample()[0]
size = tuple(item.mask.shape)

# ## The maps
#
# Here your maps would come in. As a stand-in, we average the masks of two classes over cells of 64 pixels: the maps say
# roughly where each class is, and nothing about where it ends.

class_names = ["background", "person", "dining table"]
truth = torch.zeros_like(item.mask)
for id, voc_id in ((1, 15), (2, 11)):
    truth[item.mask == voc_id] = id
truth[item.mask == 255] = 255

shown = torch.stack([(truth == id).float() for id in (1, 2)])[None]
coarse = F.adaptive_avg_pool2d(shown, (size[0] // 64, size[1] // 64))
coarse = coarse / coarse.amax((2, 3), keepdim=True)
maps = ActivationMaps(classes=(1, 2), maps=coarse[0], size=size)

# `save_cams` writes them as plain arrays, one `.npz` per image; the `.npy` dictionaries of other code bases are read as
# they are.

save_cams(cam_path(folder / "cams", "canteen"), maps, class_names)
(folder / "images").mkdir()
Image.fromarray(item.image.permute(1, 2, 0).numpy()).save(folder / "images" / "canteen.png")
(folder / "names.txt").write_text("\n".join(class_names))

# ## The seed
#
# A rule for the background turns maps into labels: here, a pixel is background where no map exceeds 0.5.

seed = make_seed(maps, constant_background(maps, 0.5))

# ## The expansion
#
# The most confident pixels of each class train the image's SVM, here on three stages of the network; its scores,
# calibrated on pixels that did not train it, are refined by a dense CRF. These maps are right wherever they are sure,
# so the SVM may follow its samples closely. A classifier's maps are wrong in many places: leave out `--kernel`, `--C`
# and `--samples-per-class` for them, and the SVM is one that believes no few pixels. It is one command, called here
# from Python:

arguments = ["--images", folder / "images", "--class-names", folder / "names.txt", "--cams", folder / "cams"]
arguments += ["--supervision", "seed", "--background", "constant:0.5", "--features", "F1+F3+F4"]
arguments += ["--kernel", "rbf", "--C", "1", "--samples-per-class", "500"]
arguments += ["--agreement", "none", "--baselines", "seed", "--refine", "none", "crf", "--out", folder / "masks"]
exit_code = expand([str(argument) for argument in arguments])

# Each way to make masks has a folder, with a palette PNG per image: `seed`, `seed+crf`, `F1+F3+F4` and
# `F1+F3+F4+crf`.

scores = {}
for name in ("seed", "seed+crf", "F1+F3+F4", "F1+F3+F4+crf"):
    score = SegmentationScore(num_classes=3)
    score.update(read_mask(folder / "masks" / name / "canteen.png"), truth)
    scores[name] = score.compute().miou
    print(f"{name}: mIoU {100 * scores[name]:.1f} %")

# The SVM gains on the seed, and its calibrated probabilities are what a CRF can use; a CRF on the seed alone wipes
# objects out. One image proves nothing, and the background's threshold was chosen on it;
# [weak mode](../weak.md) measures real maps on many images.
#
# With many images, [what other images know](../pixels.md) comes first and gains more than all of this page:
# `python train.py weak --recipe own_maps --set cams=DIR` ([in one command](../one_command.md)).
