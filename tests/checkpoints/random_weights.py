"""Random weights that influence the outputs, and the rows of the two tables that conftest.py prints."""
import torch

PARITY = []  # (format, V1 or V2, size, how it was saved, largest feature difference)
ROUND_TRIPS = []  # (path of formats, V1 or V2, size, number of tensors, note)


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random values for every parameter: with the initial layer scale and GRN, blocks hardly contribute."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() in (2, 4) and 1 not in parameter.shape[:1]:
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
            elif name.endswith('weight') or 'gamma' in name or 'scale' in name:
                parameter.copy_(0.3 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)
    return model.eval()
