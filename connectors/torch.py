"""PyTorch: tensors without gradients as tensors, and back as torch tensors of the same dtype.

Coming back it is a copy, which may be written to: torch cannot be told that memory is read-only. Which device
a tensor was on is not kept; it comes back in this machine's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flightstore.connectors import Connector
from flightstore.connectors import _tensors as tensors
from flightstore.errors import NotConvertible, NotStorable
from flightstore.objects.base import Object
from flightstore.objects.extras import require
from flightstore.types import ConversionReport

__all__ = ["CONNECTOR", "build", "report", "resolve"]


def build(value: Any, *, pickle: bool) -> np.ndarray[Any, Any]:
    """The elements of a torch tensor, taken by DLPack; shares its memory where it is in this machine's.

    Raises:
        NotStorable: it needs gradients or is not dense: its pickle says that; or there is no such dtype.
    """
    torch = require("torch", "putting a torch tensor")
    if value.requires_grad or value.layout != torch.strided or value.is_quantized:
        raise NotStorable(
            "a torch tensor that needs gradients, is sparse or quantized is more than its elements",
            hint="tensor.detach(), to_dense()",
        )
    dense = value.detach().cpu().resolve_conj().resolve_neg()
    try:
        return np.from_dlpack(dense)
    except (BufferError, RuntimeError, TypeError) as error:
        name = str(dense.dtype).removeprefix("torch.")
        bits = {1: torch.uint8, 2: torch.int16}.get(dense.element_size())
        if bits is None or not dense.dtype.is_floating_point:
            raise NotStorable(
                f"torch tensors of dtype {dense.dtype} have no portable form: {error}"
            ) from error
        return tensors.described(np.from_dlpack(dense.view(bits)), name)


def resolve(obj: Object) -> Any:
    """A stored tensor as a torch tensor in this machine's memory: a copy, which may be written to.

    Raises:
        MissingExtra: torch is not installed.
        NotConvertible: it is no tensor, or torch has no such dtype; names it.
    """
    torch = require("torch", "a torch tensor")
    array = tensors.stored_array(obj, "torch")
    name = tensors.named_dtype(array.dtype)
    try:
        if name is None:
            return torch.from_dlpack(array.astype(array.dtype.newbyteorder("="), copy=True))
        bits = np.int16 if array.dtype.itemsize == 2 else np.uint8
        return torch.from_dlpack(array.view(bits).copy()).view(getattr(torch, name))
    except (TypeError, BufferError, RuntimeError, AttributeError) as error:
        raise NotConvertible(
            f"torch has no tensors of dtype {name or array.dtype}: {error}",
            hint="obj.to_numpy() holds every dtype",
        ) from error


def report(obj: Object) -> ConversionReport:
    """What `resolve` copies: everything.

    Raises:
        NotConvertible: it is no tensor.
    """
    return tensors.report(obj, "torch")


CONNECTOR = Connector(name="torch", types=("torch.Tensor",), build=build, resolve=resolve, report=report)
