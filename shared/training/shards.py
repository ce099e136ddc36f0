"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Networks too large for one device: each process keeps a share of every weight, of its averages and of the optimizer's
state, and gathers a block's weights when it computes with them. This is torch's FSDP2, `fully_shard`.

A network's convention: what is large lies in a `ModuleList` called `blocks`, whose members are called one after the
other; each is gathered, used and let go by itself, while the next one is already on its way. A network without `blocks`
is gathered whole, which saves the memory of averages and optimizer only.

Weights stay float32 in the shares, and are gathered as such: under bf16 autocast casts them, as it does on one device,
so that one process and several compute the same. (FSDP's own policy would send half of the bytes, but would cast inputs
as well: a time of 999 would become 1000.)
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from shared.training.processes import world


def shard(model: nn.Module, device: torch.device) -> None:
    """Leave this process with its share of a network's weights, in place; buffers stay whole.

    All processes must call the network together from here on, also to sample. Weights are let go after every use, the
    outermost ones too: whoever reads the weights between two steps, such as an average, finds shares and nothing else.
    """
    if not dist.is_initialized():  # alone: torch wants a group even then
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "nccl", store=dist.HashStore(), rank=0, world_size=1
        )
    mesh = init_device_mesh(device.type, (world(),))
    for block in getattr(model, "blocks", None) or []:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def sending(model: nn.Module, now: bool) -> None:
    """Whether the next backward pass of a sharded network sends its gradients, or only adds to them."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was called."""
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together of its shares, which all processes must ask for; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, no copy; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all processes have, as shares like those of another; as it is if that has none."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
