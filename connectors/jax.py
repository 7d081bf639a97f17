"""JAX: arrays as tensors, and back as JAX arrays of the same dtype.

Stored is what ``np.asarray`` shares of the array. Coming back it is a copy: JAX takes no read-only memory by
DLPack, and may reuse the memory of arrays that are donated to a computation. Which device an array was on is
not kept; it comes back on JAX's default one.
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
    """The elements of a JAX array; shares its memory where it is in this machine's.

    Raises:
        NotStorable: parts of it are in other processes; or its dtype is weak, which only its pickle says.
    """
    if not value.is_fully_addressable:
        refusal = NotStorable(
            f"parts of this JAX array of shape {value.shape} are in other processes",
            hint="gather it first: jax.experimental.multihost_utils.process_allgather",
        )
        refusal.pickle_helps = False
        raise refusal
    if value.weak_type:
        raise NotStorable(
            "a JAX array of a weak type has no form of its own", hint="array.astype(array.dtype)"
        )
    array = np.asarray(value)
    return tensors.described(array, array.dtype.name) if _is_foreign(array.dtype) else array


def _is_foreign(dtype: np.dtype[Any]) -> bool:
    """Whether it is one of ml_dtypes: some of these look like NumPy's own."""
    return not dtype.type.__module__.startswith("numpy")


def resolve(obj: Object) -> Any:
    """A stored tensor as a JAX array on the default device: a copy, of exactly the stored dtype.

    Numbers of 64 bits stay so, whatever ``jax_enable_x64`` says; what is computed of them goes by that.

    Raises:
        MissingExtra: JAX is not installed.
        NotConvertible: it is no tensor, or JAX has no such dtype; names it.
    """
    jax = require("jax", "a JAX array")
    array = tensors.stored_array(obj, "jax")
    name = tensors.named_dtype(array.dtype)
    try:
        if name is not None:
            array = array.view(np.dtype(getattr(require("ml_dtypes", f"the dtype {name}"), name)))
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        with jax.enable_x64(True):
            made = jax.numpy.array(array, copy=True)
    except (TypeError, AttributeError) as error:
        raise NotConvertible(
            f"JAX has no arrays of dtype {array.dtype}: {error}", hint="obj.to_numpy() holds every dtype"
        ) from error
    if made.dtype != array.dtype:
        raise NotConvertible(f"JAX makes {made.dtype} of {array.dtype}", hint="obj.to_numpy() is exact")
    return made


def report(obj: Object) -> ConversionReport:
    """What `resolve` copies: everything.

    Raises:
        NotConvertible: it is no tensor.
    """
    return tensors.report(obj, "jax")


CONNECTOR = Connector(
    name="jax",
    types=("jaxlib._jax.ArrayImpl", "jaxlib.xla_extension.ArrayImpl"),
    build=build,
    resolve=resolve,
    report=report,
)
