"""Where the time of a prediction goes, by part of the model."""
from collections import defaultdict
from collections.abc import Callable

from torch import nn

from ..inference.predictor import Predictor
from .timing import CLOCKS, synchronize

PARTS = ('data', 'backbone', 'neck', 'RPN', 'RoI heads', 'decode head', 'post-processing', 'other')


class Stopwatch:
    """Sums the seconds of each part of a model, without those of the parts that it calls.

    On a GPU every part is waited for, so that it is charged with its own work; the parts then take longer together
    than the model alone. As a context manager it puts clocks around the parts and takes them away again.
    """

    def __init__(self, predictor: Predictor, clock: str = 'wall'):
        self.clock = CLOCKS[clock]
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]  # seconds of parts inside those that run now
        self.wrapped: list[tuple[object, str]] = []
        self.predictor = predictor

    def __enter__(self) -> 'Stopwatch':
        model = self.predictor.model
        for part, owner, method in ((('data', self.predictor, 'load'), ('data', model.data_preprocessor, 'forward'),
                                     ('backbone', model.backbone, 'forward'),
                                     ('neck', getattr(model, 'neck', None), 'forward'),
                                     ('RPN', getattr(model, 'rpn_head', None), 'predict'),
                                     ('RoI heads', getattr(model, 'roi_head', None), 'predict'),
                                     ('decode head', getattr(model, 'decode_head', None), 'predict'),
                                     ('decode head', getattr(model, 'decode_head', None), 'forward'),
                                     ('post-processing', model, 'postprocess_result'),
                                     ('post-processing', self.predictor, 'result'))):
            self._wrap(part, owner, method)
        roi_head = getattr(model, 'roi_head', None)
        for name in ('bbox_head', 'mask_head'):
            heads = getattr(roi_head, name, None)
            for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
                self._wrap('post-processing', head, 'predict_by_feat')
        return self

    def __exit__(self, *_) -> None:
        for owner, method in self.wrapped:
            delattr(owner, method)

    def call(self, part: str, function: Callable, *args, **kwargs):
        """Call a function and charge a part with it."""
        synchronize()
        start, outer = self.clock(), len(self.inner)
        self.inner.append(0.0)
        result = function(*args, **kwargs)
        synchronize()
        taken = self.clock() - start
        self.seconds[part] += taken - self.inner.pop()
        self.inner[outer - 1] += taken
        return result

    def _wrap(self, part: str, owner, method: str) -> None:
        function = getattr(owner, method, None)
        if function is not None:
            setattr(owner, method, lambda *args, **kwargs: self.call(part, function, *args, **kwargs))
            self.wrapped.append((owner, method))
