"""Whether the state of an optimizer in a checkpoint belongs to the optimizer that is to continue with it."""
import torch
from torch import Tensor

from ..errors import UserError, few

REMEDY = ('resume with the config and the version that wrote the checkpoint, or start a new run from its weights with '
          '--load-from')


def check_saved_state(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    """Refuse a state dict whose parameters are numbered or grouped otherwise than the optimizer's.

    torch goes by the numbers alone: the state of one parameter would continue as that of another.

    Raises:
        UserError: another number of groups or parameters, other names in a group, or a tensor of another shape.
    """
    groups, before = optimizer.param_groups, saved['param_groups']
    sizes, sizes_before = ([len(group['params']) for group in each] for each in (groups, before))
    if sizes != sizes_before:
        raise UserError(f"the optimizer's state in the checkpoint has {sum(sizes_before)} parameters in "
                        f'{len(sizes_before)} group(s), this run has {sum(sizes)} in {len(sizes)}, so it cannot be '
                        f'continued: {REMEDY}')
    numbers = [number for group in before for number in group['params']]
    params = [param for group in groups for param in group['params']]
    for number, (group, other) in enumerate(zip(groups, before, strict=True)):
        names, names_before = group.get('param_names'), other.get('param_names')
        if names and names_before and list(names) != list(names_before):
            odd = [name for name, one in zip(names_before, names, strict=True) if name != one]
            raise UserError(f"the optimizer's state in the checkpoint has other parameters in group {number} than this "
                            f'run ({few(odd)}), so it cannot be continued: {REMEDY}')
    for number, param in zip(numbers, params, strict=True):
        for key, value in saved['state'].get(number, {}).items():
            if isinstance(value, Tensor) and value.dim() and key.startswith(('exp_', 'max_exp_', 'momentum_')) \
                    and value.shape != param.shape:
                raise UserError(f"the optimizer's state in the checkpoint has {key} of shape {tuple(value.shape)} for "
                                f'parameter {number}, whose shape is {tuple(param.shape)} in this run, so it cannot be '
                                f'continued: {REMEDY}')
