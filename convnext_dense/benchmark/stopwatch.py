"""Where the time of a prediction or of a training step goes, by part of the model."""
from collections import defaultdict
from collections.abc import Callable

from mmengine.optim import OptimWrapper
from torch import nn

from ..inference.predictor import Predictor
from .timing import CLOCKS, synchronize

PARTS = ('data', 'backbone', 'neck', 'RPN', 'RoI heads', 'dense head', 'decode head', 'auxiliary head',
         'post-processing', 'other', 'backward', 'optimizer')
Methods = list[tuple[str, object, str]]  # a part, an object, and the name of a method of it that belongs to the part


def prediction_methods(predictor: Predictor) -> Methods:
    """The parts of a prediction."""
    model = predictor.model
    decode_head, roi_head = (getattr(model, name, None) for name in ('decode_head', 'roi_head'))
    methods = [('data', predictor, 'load'), ('data', model.data_preprocessor, 'forward'),
               ('backbone', model.backbone, 'forward'), ('neck', getattr(model, 'neck', None), 'forward'),
               ('RPN', getattr(model, 'rpn_head', None), 'predict'), ('RoI heads', roi_head, 'predict'),
               ('decode head', decode_head, 'predict'), ('decode head', decode_head, 'forward'),
               ('post-processing', model, 'postprocess_result'), ('post-processing', predictor, 'result')]
    for name in ('bbox_head', 'mask_head'):
        heads = getattr(roi_head, name, None)
        methods += [('post-processing', head, 'predict_by_feat')
                    for head in (heads if isinstance(heads, nn.ModuleList) else [heads])]
    return methods


def training_methods(model: nn.Module, optim_wrapper: OptimWrapper, compiled: bool = False) -> Methods:
    """The parts of a training step, whose forward pass ends with the losses; the rest of it is 'other'.

    Args:
        compiled: whether the forward pass is one graph, which has no parts.
    """
    heads = [('RPN', 'rpn_head', 'loss_and_predict'), ('RPN', 'rpn_head', 'losses_and_proposals'),
             ('RoI heads', 'roi_head', 'loss'), ('RoI heads', 'roi_head', 'losses'),
             ('dense head', 'bbox_head', 'loss'), ('decode head', 'decode_head', 'loss'),
             ('auxiliary head', 'auxiliary_head', 'loss')]
    forward = [('backbone', model.backbone, 'forward'), ('neck', getattr(model, 'neck', None), 'forward'),
               *((part, getattr(model, name, None), method) for part, name, method in heads)]
    return [('data', model.data_preprocessor, 'forward'), *([] if compiled else forward),
            ('backward', optim_wrapper, 'backward'), ('optimizer', optim_wrapper, 'step'),
            ('optimizer', optim_wrapper, 'zero_grad')]


class Stopwatch:
    """Sums the seconds of each part of a model, without those of the parts that it calls.

    On a GPU every part is waited for, so that it is charged with its own work; the parts then take longer together
    than the model alone. As a context manager it puts clocks around the parts and takes them away again.
    """

    def __init__(self, methods: Methods, clock: str = 'wall'):
        self.clock = CLOCKS[clock]
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]  # seconds of parts inside those that run now
        self.wrapped: list[tuple[object, str]] = []
        self.methods = methods

    def __enter__(self) -> 'Stopwatch':
        for part, owner, method in self.methods:
            self._wrap(part, owner, method)
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
