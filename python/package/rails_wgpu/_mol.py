"""A Mixture-of-Logits similarity of the reference implementation as a file that a searcher reads.

PyTorch is not imported: a module is asked for its ``state_dict()``, and a tensor for its array.
"""

import json
import math
import os
import struct
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union, overload

import numpy as np
import numpy.typing as npt

from ._arrays import integer, to_numpy

Arrays = Dict[str, "npt.NDArray[Any]"]
Path = Union[str, "os.PathLike[str]"]

_PREFIX = "_ndp_module."
_QUERY = "_query_embeddings_fn._query_emb_proj_module"
_ITEM = "_item_embeddings_fn._item_emb_proj_module"
_UID = "_query_embeddings_fn._uid_embeddings_"
_GATE = "_gating_fn."
_LEGACY_ITEM = "_item_proj_module"
# Prefixes that wrappers put before every name: DistributedDataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")
_COMBINATIONS = ("glu_silu", "glu_silu_ln", "none")
_NONLINEARITIES = ("geglu", "swiglu")
# The largest L of given components: a gate without a hidden layer has L x L weights. As `MAX_LOGITS` of the compiled half.
_MOST_LOGITS = 4096


@overload
def export_mol(
    mol: Any,
    path: Path,
    *,
    temperature: Optional[float] = ...,
    dot_product_l2_norm: Optional[bool] = ...,
    eps: Optional[float] = ...,
    gating_combination: Optional[str] = ...,
    query_nonlinearity: Optional[str] = ...,
    item_nonlinearity: Optional[str] = ...,
) -> str: ...
@overload
def export_mol(
    mol: Any,
    path: None = None,
    *,
    temperature: Optional[float] = ...,
    dot_product_l2_norm: Optional[bool] = ...,
    eps: Optional[float] = ...,
    gating_combination: Optional[str] = ...,
    query_nonlinearity: Optional[str] = ...,
    item_nonlinearity: Optional[str] = ...,
) -> bytes: ...
def export_mol(
    mol: Any,
    path: Optional[Path] = None,
    *,
    temperature: Optional[float] = None,
    dot_product_l2_norm: Optional[bool] = None,
    eps: Optional[float] = None,
    gating_combination: Optional[str] = None,
    query_nonlinearity: Optional[str] = None,
    item_nonlinearity: Optional[str] = None,
) -> Union[str, bytes]:
    """Writes a similarity to ``path`` (``.safetensors``) and returns the path; without one, returns the bytes.

    ``mol`` is a live ``MoLSimilarity`` of the reference implementation, a model that has one as ``_ndp_module``, or the
    ``state_dict`` of either. What the weights do not say is read from the module; for a ``state_dict`` it must be given:
    ``temperature`` (divisor of the logits), ``dot_product_l2_norm``, ``eps`` (smallest norm divided by; 1e-6),
    ``gating_combination`` (``glu_silu``, ``glu_silu_ln`` or ``none``), and, for projections with a hidden layer,
    ``query_nonlinearity`` and ``item_nonlinearity`` (``geglu`` or ``swiglu``). Given values win.

    Raises ValueError, naming what is missing or does not fit.
    """
    given = {
        "temperature": temperature,
        "dot_product_l2_norm": dot_product_l2_norm,
        "eps": eps,
        "gating_combination": gating_combination,
        "query_nonlinearity": query_nonlinearity,
        "item_nonlinearity": item_nonlinearity,
    }
    known: Dict[str, Any] = {}
    if not isinstance(mol, Mapping):
        module = _similarity(mol)
        known, mol = _hyper_parameters(module), module.state_dict()
    known.update({name: value for name, value in given.items() if value is not None})
    arrays = _weights(mol)
    header = {"format": 1, "dim": _dim(arrays), "mol": _config(arrays, known)}
    content = _safetensors({_PREFIX + name: array for name, array in arrays.items()}, {"rails.mol": json.dumps(header)})
    if path is None:
        return content
    with open(path, "wb") as file:
        file.write(content)
    return os.fspath(path)


def export_gate(
    n_query_components: int,
    n_item_components: int,
    width: int,
    path: Optional[Path] = None,
    *,
    layers: Any = None,
    temperature: float = 1.0,
    l2_norm: bool = False,
    eps: float = 1e-6,
    gating_combination: str = "none",
) -> Union[str, bytes]:
    """Writes a similarity of component embeddings that are given as they are; returns the path, or without one the bytes.

    Queries are (B, P_Q, D_P) and items (N, P_X, D_P) then, with P_Q ``n_query_components``, P_X ``n_item_components`` and D_P
    ``width``; their L = P_Q P_X logits, at most 4096, are ``<f_n, g_m> / temperature``, of components divided by their norm with ``l2_norm``. The
    gate sees the logits only: ``layers`` are its linear layers, L to L, or L to H (and a SiLU) to L: a PyTorch module that has
    them, its ``state_dict``, or pairs of arrays (weight (out, in), bias (out)). Without any, the gating weights are the softmax of
    the logits themselves. ``gating_combination``: what the weights are a softmax of: the gate ``g`` for ``none``, ``g * sigmoid(g)``
    for ``glu_silu``, or ``glu_silu_ln``.

    Raises ValueError or TypeError, naming what does not fit.
    """
    n_query_components = integer("n_query_components", n_query_components, 1, 2**32 - 1)
    n_item_components = integer("n_item_components", n_item_components, 1, 2**32 - 1)
    width = integer("width", width, 1, 2**32 - 1)
    for name, value in (("temperature", temperature), ("eps", eps)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a finite number above 0, found {value}")
    n_logits = n_query_components * n_item_components
    if n_logits > _MOST_LOGITS:
        raise ValueError(
            f"n_query_components, n_item_components: expected a product of at most {_MOST_LOGITS}, found {n_logits}"
        )
    if gating_combination not in _COMBINATIONS:
        raise ValueError(f"gating_combination: expected one of {', '.join(_COMBINATIONS)}, found {gating_combination!r}")
    pairs = _linear_layers(layers, n_logits)
    hidden = int(pairs[0][1].shape[0]) if len(pairs) == 2 else None
    arrays: Arrays = {}
    for number, (weight, bias) in zip((1, 3), pairs):
        arrays[f"{_PREFIX}{_GATE}_qi_partial_module.{number}.weight"] = weight
        arrays[f"{_PREFIX}{_GATE}_qi_partial_module.{number}.bias"] = bias
    config: Dict[str, Any] = {
        "query_dot_product_groups": n_query_components,
        "item_dot_product_groups": n_item_components,
        "dot_product_dimension": width,
        "given_components": True,
        "temperature": float(temperature),
        "dot_product_l2_norm": bool(l2_norm),
        "eps": float(eps),
        "query_hidden": None,
        "item_hidden": None,
        "uid_embedding_hash_sizes": [],
        "gating_combination": gating_combination,
        "gating_query_hidden_dim": None,
        "gating_item_hidden_dim": None,
        "gating_qi_hidden_dim": hidden,
    }
    header = {"format": 1, "dim": n_item_components * width, "mol": config}
    content = _safetensors(arrays, {"rails.mol": json.dumps(header)})
    if path is None:
        return content
    with open(path, "wb") as file:
        file.write(content)
    return os.fspath(path)


def _linear_layers(layers: Any, n_logits: int) -> "List[Tuple[npt.NDArray[Any], npt.NDArray[Any]]]":
    """Weights and biases of the gate, f32."""
    if layers is None:
        layers = [(np.eye(n_logits), np.zeros(n_logits))]
    elif hasattr(layers, "state_dict") or isinstance(layers, Mapping):
        tensors = list((layers if isinstance(layers, Mapping) else layers.state_dict()).values())
        layers = list(zip(tensors[::2], tensors[1::2]))
    pairs = [tuple(np.ascontiguousarray(to_numpy("layers", part), dtype=np.float32) for part in pair) for pair in layers]
    shapes = [tuple(part.shape for part in pair) for pair in pairs]
    one = shapes == [((n_logits, n_logits), (n_logits,))]
    width = shapes[0][-1][0] if len(shapes) == 2 and shapes[0] and shapes[0][-1] else 0
    if not one and (width == 0 or shapes != [((width, n_logits), (width,)), ((n_logits, width), (n_logits,))]):
        raise ValueError(
            f"layers: expected one linear layer {n_logits} -> {n_logits}, or two, {n_logits} -> H -> {n_logits}, each with a "
            f"weight (out, in) and a bias (out); found {shapes}"
        )
    return [(pair[0], pair[1]) for pair in pairs]


def _similarity(module: Any) -> Any:
    """The similarity itself, out of wrappers and of the model around it."""
    for name in ("_orig_mod", "module", "_orig_mod", "_ndp_module", "_orig_mod"):
        module = getattr(module, name, module)
    if not hasattr(module, "state_dict"):
        raise ValueError(f"mol: expected a PyTorch module or a state_dict, found {type(module).__name__}")
    return module


def _hyper_parameters(module: Any) -> Dict[str, Any]:
    """What a live module knows and its weights do not."""
    query = getattr(module, "_query_embeddings_fn", None)
    item = getattr(module, "_item_embeddings_fn", None)
    known = {
        "temperature": getattr(module, "_temperature", None),
        "dot_product_l2_norm": getattr(module, "_dot_product_l2_norm", None),
        "eps": getattr(module, "_eps", None),
        "gating_combination": getattr(getattr(module, "_gating_fn", None), "_combination_type", None),
        "query_nonlinearity": _glu(getattr(query, "_query_emb_proj_module", None)),
        "item_nonlinearity": _glu(getattr(item, "_item_emb_proj_module", None)),
    }
    return {name: value for name, value in known.items() if value is not None}


def _glu(projection: Any) -> Optional[str]:
    """Which gated linear unit a projection has, by the name of its class."""
    layers = projection.children() if hasattr(projection, "children") else []
    names = [type(layer).__name__.lower() for layer in layers]
    return next((kind for kind in _NONLINEARITIES for name in names if kind in name), None)


def _weights(state: Mapping[str, Any]) -> Arrays:
    """The similarity's tensors as f32, by their names inside it."""
    arrays: Arrays = {}
    whole = any(_PREFIX in name for name in state)
    for full_name, tensor in state.items():
        name = full_name
        while name.startswith(_WRAPPERS):
            name = name.split(".", 1)[1]
        if name.startswith(_PREFIX):
            name = name[len(_PREFIX) :]
            while name.startswith(_WRAPPERS):
                name = name.split(".", 1)[1]
        elif whole:
            continue  # the encoder's
        if name.startswith(_LEGACY_ITEM + "."):
            name = _ITEM + name[len(_LEGACY_ITEM) :]
        array = np.ascontiguousarray(to_numpy(f"mol: `{full_name}`", tensor), dtype="<f4")
        if not np.isfinite(array).all():
            raise ValueError(f"mol: `{full_name}`: expected finite values")
        arrays[name] = array
    return arrays


def _need(arrays: Arrays, name: str, axes: int) -> "npt.NDArray[Any]":
    array = arrays.get(name)
    if array is None:
        near = ", ".join(f"`{other}`" for other in sorted(arrays)[:5]) or "nothing"
        raise ValueError(f"mol: expected a tensor `{name}`, found {near}, ...")
    if array.ndim != axes:
        raise ValueError(f"mol: `{name}`: expected {axes} axes, found shape {array.shape}")
    return array


def _dim(arrays: Arrays) -> int:
    """D: width of raw embeddings."""
    if f"{_ITEM}.1._w" in arrays:
        return int(_need(arrays, f"{_ITEM}.1._w", 2).shape[0])
    return int(_need(arrays, f"{_ITEM}.1.weight", 2).shape[1])


def _config(arrays: Arrays, known: Dict[str, Any]) -> Dict[str, Any]:
    """The hyper-parameters: what the shapes say, and what is known beside them."""
    if known.get("gating_combination", "none") not in _COMBINATIONS:
        raise ValueError(f"gating_combination: expected one of {_COMBINATIONS}, found {known['gating_combination']!r}")
    needed = ["temperature", "dot_product_l2_norm", "eps", "gating_combination"]
    hidden = {"query": f"{_QUERY}.1._w" in arrays, "item": f"{_ITEM}.1._w" in arrays}
    needed += [f"{side}_nonlinearity" for side, has_hidden in hidden.items() if has_hidden]
    missing = [name for name in needed if known.get(name) is None]
    if missing:
        raise ValueError(f"mol: expected {', '.join(missing)} as arguments, found them neither given nor in the module")

    def projection(name: str, side: str) -> "tuple[int, Optional[Dict[str, Any]]]":
        """Width of the output, and the hidden layer if there is one."""
        if not hidden[side]:
            return int(_need(arrays, f"{name}.1.weight", 2).shape[0]), None
        kind = known[f"{side}_nonlinearity"]
        if kind not in _NONLINEARITIES:
            raise ValueError(f"{side}_nonlinearity: expected one of {_NONLINEARITIES}, found {kind!r}")
        output = _need(arrays, f"{name}.2.weight", 2)
        return int(output.shape[0]), {"hidden_dim": int(output.shape[1]), "nonlinearity": kind}

    def gate(name: str) -> Optional[int]:
        """Width of a one-sided part's hidden layer, if there is such a part."""
        present = f"{_GATE}{name}.weight" in arrays
        return int(_need(arrays, f"{_GATE}{name}.weight", 2).shape[0]) if present else None

    cross = "_qi_partial_module"
    has_cross_hidden = f"{_GATE}{cross}.3.weight" in arrays
    n_logits = int(_need(arrays, f"{_GATE}{cross}.{3 if has_cross_hidden else 1}.weight", 2).shape[0])
    uid_tables = _uid_tables(arrays)
    (query_width, query_hidden), (item_width, item_hidden) = projection(_QUERY, "query"), projection(_ITEM, "item")
    # Without a table: query_width = P_Q D_P, item_width = P_X D_P, and L = P_Q P_X.
    d_p = int(uid_tables[0].shape[1]) if uid_tables else math.isqrt(query_width * item_width // n_logits)
    p_q, p_x = query_width // max(d_p, 1) + len(uid_tables), item_width // max(d_p, 1)
    fits = (p_q - len(uid_tables)) * d_p == query_width and p_x * d_p == item_width and p_q * p_x == n_logits
    if not fits:
        raise ValueError(
            f"mol: expected widths P_Q D_P, P_X D_P and P_Q P_X, found {query_width}, {item_width} and {n_logits} "
            f"with {len(uid_tables)} uid tables"
        )
    return {
        "query_dot_product_groups": p_q,
        "item_dot_product_groups": p_x,
        "dot_product_dimension": d_p,
        "temperature": float(known["temperature"]),
        "dot_product_l2_norm": bool(known["dot_product_l2_norm"]),
        "eps": float(known["eps"]),
        "query_hidden": query_hidden,
        "item_hidden": item_hidden,
        "uid_embedding_hash_sizes": [int(table.shape[0]) - 1 for table in uid_tables],
        "gating_combination": known["gating_combination"],
        "gating_query_hidden_dim": gate("_query_only_partial_module.0"),
        "gating_item_hidden_dim": gate("_item_only_partial_module.1"),
        "gating_qi_hidden_dim": int(arrays[f"{_GATE}{cross}.1.weight"].shape[0]) if has_cross_hidden else None,
    }


def _uid_tables(arrays: Arrays) -> "List[npt.NDArray[Any]]":
    tables: "List[npt.NDArray[Any]]" = []
    while f"{_UID}{len(tables)}.weight" in arrays:
        tables.append(_need(arrays, f"{_UID}{len(tables)}.weight", 2))
    return tables


def _safetensors(arrays: Arrays, metadata: Dict[str, str]) -> bytes:
    """The bytes of a ``.safetensors`` file, tensors in the order of their names."""
    header: Dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in sorted(arrays):
        begin, end = end, end + arrays[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(arrays[name].tobytes() for name in sorted(arrays))
