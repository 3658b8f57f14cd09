# # The SVM in your loop
#
# `SVM` fits batches of one-vs-rest support vector machines on any vectors, on the device where these are;
# `SVMExpander` does so on feature maps. Both are modules, and gradients run through the fit.

import torch
from torch import nn
from torch.nn import functional as F

from torch_svm_seg import SVM, SVMExpander, load_backbone
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.segmenters import build_segmenter
from torch_svm_seg.segmenters.online import OnlineLabels

# ## One SVM per row of a batch
#
# `x` holds N vectors of D numbers for each of B problems, `y` their classes; -1 is padding. The problems are
# independent, and solved together to a duality gap that is known.

generator = torch.Generator().manual_seed(0)
centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
y = torch.randint(3, (4, 200), generator=generator)  # (B, N)
x = centres[y] + torch.randn(4, 200, 2, generator=generator)  # (B, N, D)
svm = SVM(kernel="rbf", C=1.0).fit(x, y)
accuracy = (svm.predict(x) == y).float().mean().item()
print(f"{100 * accuracy:.1f} % right, relative duality gap at most {svm.duality_gap_.amax():.0e}")

# ## Pseudo labels in a training loop
#
# A few labelled pixels of each image become a label for every pixel, online, while a segmentation head learns from
# them.

item = embedded_sample()[0]
images, labels = item.image[None], item.mask[None]
backbone = load_backbone("efficientnet_lite0")
expander = SVMExpander(samples_per_class=20)
head = nn.Conv2d(backbone.channels["F4"], 21, 1)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
losses = []
for _ in range(8):
    with torch.no_grad():
        stages = backbone.stages(images, ["F1", "F3", "F4"])
        pseudo_masks = expander(list(stages.values()), labels).masks
    logits = F.interpolate(head(stages["F4"]), labels.shape[1:], mode="bilinear")
    loss = F.cross_entropy(logits, pseudo_masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")

# ## Labels that the network gives itself
#
# `OnlineLabels` needs no labelled pixels that are right: masks tell which classes an image has, the network's own
# probabilities choose the pixels that train each image's SVM, and its current features are what the SVM sees. First the
# network has to learn from the masks. `train.py segment --online N` does this for every N-th batch.

network = build_segmenter("lite:efficientnet_lite0", num_classes=21).train()
relabel = OnlineLabels(network, samples_per_class=100)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
own_losses = []
for step in range(8):
    masks = labels if step < 5 else relabel.label(images, labels)
    loss = network.losses(images, masks)["segmentation"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    own_losses.append(loss.item())
kept = 100 * (masks == labels).float().mean()
print(f"loss {own_losses[0]:.2f} -> {own_losses[-1]:.2f}; {kept:.1f} % of the labels as given")

# ## A gradient through the fit
#
# With `gradient="implicit"` the scores are differentiable with respect to the features, through the solution of the
# SVM: the features learn what makes their SVMs good. Here a projection of one stage learns to classify the cells of its
# grid that the SVM was not trained on. The squared hinge is smooth, as the gradient asks for. `SVMExpander` hands the
# gradient on in the same way.

features = stages["F3"]  # (1, 40, h, w)
projection = nn.Conv2d(features.shape[1], features.shape[1], 1, bias=False)
nn.init.dirac_(projection.weight)
cells = F.interpolate(labels[None].float(), features.shape[2:]).long().flatten()  # (h w,)
train = torch.cat([(cells == id).nonzero()[:20, 0] for id in cells.unique() if id != 255])
held_out = (cells != 255).index_fill(0, train, False).nonzero()[:, 0]
target = cells[held_out].unique(return_inverse=True)[1]
svm = SVM(loss="squared_hinge", gradient="implicit")
optimizer = torch.optim.SGD(projection.parameters(), lr=0.1)
through_fit = []
for _ in range(8):
    vectors = projection(features).flatten(2).transpose(1, 2)  # (1, h w, 40)
    svm.fit(vectors[:, train], cells[None, train])
    scores = svm.decision_function(vectors[:, held_out])[0]  # (cells, classes), classes in the order of their ids
    loss = F.multi_margin_loss(scores, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    through_fit.append(loss.item())
print(f"hinge loss of held-out cells {through_fit[0]:.4f} -> {through_fit[-1]:.4f}")

# `examples/finetune_through_svm.py` does this on a whole data set; [Fusion](../fusion.md) has its results.
