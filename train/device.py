"""The device of the networks."""

import torch

from dali_bgaug.errors import UserError
from pipelines.build import choose_device


def choose_torch_device(wanted: str, option: str = "data.device") -> torch.device:
    """The device of the networks is that of the data: `data.device`, "auto", "cpu" or "gpu"."""
    number = choose_device(wanted, None)
    if number is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"{option}: there is a GPU, but this torch cannot use it; install its CUDA build, or take "
            f"{option}=cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # views have one size
    return device
