"""What each of two ranks does in a test of norms over several ranks: a module that a new process imports quickly."""
import torch
from torch import nn

from convnext_dense.detection.masked_norm import norms_over


def rank_norm(rank: int, folder: str) -> None:
    """One of two ranks: its rows through a SyncBatchNorm, and the gradients of the sum of both losses."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2)
    data = torch.load(f'{folder}/data.pth')
    norm = nn.SyncBatchNorm(3).double()
    x = data['x'][rank].requires_grad_()
    with norms_over(nn.Sequential(norm), data['rows'][rank]):
        y = norm(x)
    (y[data['rows'][rank]] ** 3).sum().backward()
    torch.save(dict(y=y.detach(), grad=x.grad, mean=norm.running_mean, var=norm.running_var), f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()
