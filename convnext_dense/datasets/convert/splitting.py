"""A seeded split into training and validation images that keeps the share of every class."""
import numpy as np

from ...errors import UserError


def stratified_split(labels: list[set[int]], fraction: float, seed: int) -> list[str]:
    """'train' or 'val' for every image, so that about `fraction` of each class's images are for training.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011):
    the class with the fewest undecided images comes first, and each of its images goes to the part that lacks most
    of that class. A class with two images or more gets one in each part where that is possible.

    Args:
        labels: the classes in each image.
        fraction: of the images for training, between 0 and 1, exclusive.
        seed: of the order among equals.

    Raises:
        UserError: fewer than two images, or a fraction out of range.
    """
    if not 0 < fraction < 1:
        raise UserError(f'--split {fraction}: expected a fraction between 0 and 1, for example 0.8')
    if len(labels) < 2:
        raise UserError(f'{len(labels)} image cannot be divided into training and validation: at least 2 are needed')
    rng = np.random.default_rng(seed)
    shares = np.array([fraction, 1 - fraction])
    undecided = {}
    for index, classes in enumerate(labels):
        for label in classes:
            undecided.setdefault(label, set()).add(index)
    wanted = {label: np.maximum(shares * len(images), 1 if len(images) > 1 else 0)
              for label, images in undecided.items()}
    room = np.clip(np.rint(shares * len(labels)), 1, len(labels) - 1)
    sides = np.full(len(labels), -1)

    def decide(index: int, preference: np.ndarray) -> None:
        side = int(np.lexsort((room, preference))[-1])
        sides[index] = side
        room[side] -= 1
        for label in labels[index]:
            wanted[label][side] -= 1
            undecided[label].discard(index)

    while any(undecided.values()):
        label = min((label for label in undecided if undecided[label]), key=lambda one: (len(undecided[one]), one))
        for index in rng.permutation(sorted(undecided[label])):
            decide(int(index), wanted[label])
    for index in rng.permutation(np.flatnonzero(sides < 0)):
        decide(int(index), room)
    if len(set(sides.tolist())) == 1:  # two images of one class: neither part may be empty
        sides[-1] = 1 - sides[-1]
    return [('train', 'val')[side] for side in sides]
