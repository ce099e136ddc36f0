"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Several processes, each with a device of its own: who this one is, how they agree, and what only the first one does.

Start them by `torchrun` or `accelerate launch`; both say by RANK and WORLD_SIZE who is who. Alone, all of this does
nothing. What is agreed on are small tensors on the CPU, sent by gloo: on GPUs no step waits for a device because of it.
Free of torch until there is somebody to talk to, so that `--help` answers at once.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, TextIO

from shared.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import Store

PATIENCE = timedelta(hours=12)  # the first may read a million captions while the others wait; a dead one is noticed
HEARD = 3.0  # seconds for which an error waits to hear whether the first process has the same
LOST = ("gloo/transport", "nccl", "connection closed", "connection reset", "broken pipe")  # in torch's messages
BUCKET = 2**25  # numbers of the gradient sent at a time: 128 MB
_groups = count()
_met: list["Store"] = []  # where processes leave notes for each other; it outlives each of them


class Left(UserError):
    """Another process has ended, and this one cannot go on without it."""


def rank() -> int:
    """Which process this is, from 0."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """Which of the processes of this machine this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line, once for all processes; to standard output unless told otherwise."""
    if is_first():
        print(text, file=file, flush=True)


# --- meeting ------------------------------------------------------------------------------------------------


def store() -> "Store":
    """Where processes leave notes for each other, kept by torchrun."""
    if not _met:
        from torch.distributed import PrefixStore, rendezvous

        _met.append(PrefixStore("noise-to-video", next(rendezvous("env://", timeout=timedelta(minutes=5)))[0]))
    return _met[0]


def start() -> None:
    """Meet the other processes, once; each takes the GPU of its number on its machine, where there are GPUs."""
    if world() == 1:
        return
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore

    if dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        if local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(local_rank())
    group = PrefixStore(f"group {next(_groups)}", store())
    dist.init_process_group(backend, store=group, rank=rank(), world_size=world(), timeout=PATIENCE)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Where processes talk to each other: one that has ended becomes a `Left`, which says why if it left a note."""
    try:
        yield
    except RuntimeError as error:  # torch has a type of its own only for some of these
        if world() == 1 or not any(word in str(error).lower() for word in LOST):
            raise
        others = [r for r in range(world()) if r != rank() and store().check([f"error {r}"])]
        why = f"process {others[0]} ended: {store().get(f'error {others[0]}').decode()}" if others else ""
        raise Left(why or "another process ended, and left no word why") from None


def leave() -> None:
    """Part from the others, at the end of a program that all of them end."""
    if world() > 1 and "torch" in sys.modules:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def desert(status: int) -> int:
    """End a program that failed here, and perhaps nowhere else: to part in order could mean to wait for ever.

    Alone it is the exit status that comes back.
    """
    if world() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


# --- agreeing -----------------------------------------------------------------------------------------------


def agreed(values: "Tensor", how: str = "sum") -> "Tensor":
    """The sum, "min" or "max" over all processes of a tensor on the CPU, in place; all wait for each other."""
    if world() > 1:
        import torch.distributed as dist

        start()
        with together():
            dist.all_reduce(values, op=getattr(dist.ReduceOp, how.upper()))
    return values


def largest(value: int) -> int:
    """The largest of the processes' numbers. About 0.1 ms on one machine, and the time of the slowest to get here."""
    if world() == 1:
        return value
    import torch

    return int(agreed(torch.tensor(value), "max"))


def wait() -> None:
    """Go on when all have come here."""
    largest(0)


def told(text: str) -> str:
    """The first process's text, for all. Bytes, not objects: nothing is unpickled."""
    import torch
    import torch.distributed as dist

    content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0)
    size = largest(len(content) if is_first() else 0)
    content = content if is_first() else torch.zeros(size, dtype=torch.uint8)
    with together():
        dist.broadcast(content, 0)
    return bytes(content.tolist()).decode()


def first(action: Callable[[], Any]) -> Any:
    """Have the first process do something; all get what it returns, which JSON must be able to say.

    Raises:
        UserError, OSError: what the first process met, in all of them.
    """
    if world() == 1:
        return action()
    if not is_first():
        kind, *content = json.loads(told(""))
        if kind == "result":
            return content[0]
        raise OSError(*content) if kind == "system" else UserError(*content)
    try:
        result = action()
    except OSError as error:
        told(json.dumps(["system", error.errno, error.strerror or str(error), str(error.filename or "") or None]))
        raise
    except UserError as error:
        told(json.dumps(["error", str(error)]))
        raise
    told(json.dumps(["result", result]))
    return result


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """What leaves files behind, such as a download, is done by the first process; then by one process a machine; then
    by the rest. So each file is made once, and found by the others. What goes wrong goes wrong in each."""
    place = 0 if is_first() else 1 if local_rank() == 0 else 2
    for _ in range(place):
        wait()
    try:
        yield
    finally:
        for _ in range(2 - place):
            wait()


# --- one training -------------------------------------------------------------------------------------------


def share_weights(model: "nn.Module") -> None:
    """Give every process the first one's parameters and buffers: they start alike, whatever each drew them from.

    From then on they stay alike, as each takes the same steps. A buffer that a network moves by itself is each
    process's own, and the first one's is saved; a codebook that all move together is not such a one.
    """
    import torch
    import torch.distributed as dist

    if world() > 1:
        with together(), torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor, 0)


def average_gradients(model: "nn.Module") -> None:
    """Put the mean over all processes in the place of each gradient.

    By hand, not by DistributedDataParallel: that wants to be the one door to the network, once for each backward pass,
    and every parameter used. Here a loss may go through two networks, differentiate twice, or leave parameters out.
    The price: nothing is sent while gradients are still being computed, but once, after the last micro-batch of a
    step. Where that is too slow, `train.shard` sends as it computes.

    A parameter that no process has a gradient for keeps none, so that the optimizer leaves it alone, as it would alone.
    """
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    parameters = [p for p in model.parameters() if p.requires_grad]
    reached = agreed(torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8), "max").tolist()
    gradients = []
    for parameter, known in zip(parameters, reached, strict=True):
        if known:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    with together():
        for bucket in buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            parts = (flat / world()).split([gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])


def buckets(tensors: list["Tensor"]) -> "Iterator[list[Tensor]]":
    """Tensors in groups of one type and moderate size, in their order."""
    group: list[Tensor] = []
    for tensor in tensors:
        if group and (group[0].dtype != tensor.dtype or sum(t.numel() for t in group) + tensor.numel() > BUCKET):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


# --- errors -------------------------------------------------------------------------------------------------


def report(program: str, message: str, error: BaseException | None = None) -> None:
    """Print an error, once for all processes: another than the first says what the first does not, with its number."""
    if world() == 1:
        print(f"{program}: {message}", file=sys.stderr)
        return
    notes, left = store(), isinstance(error, Left)  # whoever that was has said why
    if not left:
        notes.set(f"error {rank()}", message)
    if is_first():
        print(f"{program}: {message}", file=sys.stderr, flush=True)
        return
    until = time.monotonic() + HEARD
    while not left and time.monotonic() < until:
        left = notes.check(["error 0"]) and notes.get("error 0").decode() == message
        time.sleep(0.05)
    if not left:
        print(f"{program} [process {rank()}]: {message}", file=sys.stderr, flush=True)
