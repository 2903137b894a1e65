"""Pooling of the token states of a language model into component embeddings."""

import os
from typing import Any, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from . import _arrays, _native

Path = Union[str, "os.PathLike[str]"]


class TokenPooling:
    """A stage between a language model and Mixture-of-Logits: P component embeddings of width D_P of each text.

    Of a text with n token states x (n, D), component p is::

        first tokens:  c_p = x_p
        mixture:       c_p = sum_{t < m} w_pt x_t    m = min(n, T),  w_p = softmax(a_p0, ..., a_p(m-1)), or w = a
        then:          g_p = W c_p + b               with a projection, one for all components
                       g_p / max(||g_p||, eps)       with an l2 norm

    What a text has beyond its first P or T tokens is left out. A text of less than P tokens has no state for its last components:
    these are zeros, after projection and norm too.

    >>> import numpy as np
    >>> from rails_wgpu import TokenPooling
    >>> texts = [np.array([[1, 0], [0, 1]], dtype=np.float32), np.array([[0.5, 2]], dtype=np.float32)]
    >>> TokenPooling.first_tokens(2).pool(texts, device="cpu").tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 2.0], [0.0, 0.0]]]

    ``projection`` is a linear layer D to D_P: a PyTorch module, or its weight (D_P, D), or a tuple (weight, bias (D_P)).
    """

    def __init__(self, native: "_native.TokenPooling") -> None:
        """Use :meth:`first_tokens`, :meth:`mixture` or :meth:`open`."""
        self._native = native

    @classmethod
    def first_tokens(
        cls, n_components: int, *, projection: Any = None, l2_norm: bool = False, eps: float = 1e-6
    ) -> "TokenPooling":
        """The states of the first P ``n_components`` tokens, at most 4096. Raises ValueError or TypeError."""
        n_components = _arrays.integer("n_components", n_components, 1, 2**32 - 1)
        return cls(_native.TokenPooling.first_tokens(n_components))._with(projection, l2_norm, eps)

    @classmethod
    def mixture(
        cls, weights: Any, *, softmax: bool = True, projection: Any = None, l2_norm: bool = False, eps: float = 1e-6
    ) -> "TokenPooling":
        """Sums of token states with ``weights`` (P, T): these themselves, or with ``softmax`` their softmax over the tokens that a
        text has. Raises ValueError or TypeError."""
        native = _native.TokenPooling.mixture(_matrix("weights", weights), softmax)
        return cls(native)._with(projection, l2_norm, eps)

    @classmethod
    def open(cls, path: Path) -> "TokenPooling":
        """Reads a file that :meth:`save` has written. Raises OSError or ValueError."""
        return cls(_native.TokenPooling.open(path))

    def save(self, path: Path) -> None:
        """Writes a ``.safetensors`` file, also for ``rails-bench index build --pooling``. Raises OSError."""
        self._native.save(path)

    @property
    def n_components(self) -> int:
        """P."""
        return self._native.n_components

    def pool(self, texts: Any, mask: Any = None, *, device: str = "auto") -> "npt.NDArray[np.float32]":
        """The component embeddings (N, P, D_P) of N texts: queries or items of a searcher with a gate of :func:`export_gate`.

        ``texts`` are N arrays (n, D) of token states, or one array (N, n, D) with a ``mask`` (N, n), an ``attention_mask``: tokens whose
        mask is 0 are padding, on either side, and as if they were not there.

        Raises ValueError or TypeError, naming what does not fit, or DeviceError.
        """
        if mask is not None:
            texts = _without_padding(_arrays.to_numpy("texts", texts), _arrays.to_numpy("mask", mask))
        states, lengths = _arrays.token_embeddings("texts", texts)
        return self._native.pool(states, lengths, device)

    def _with(self, projection: Any, l2_norm: bool, eps: float) -> "TokenPooling":
        native = self._native
        if projection is not None:
            native = native.with_projection(*_layer(projection))
        return TokenPooling(native.with_l2_norm(eps) if l2_norm else native)


def _layer(projection: Any) -> "Tuple[npt.NDArray[np.float32], Optional[npt.NDArray[np.float32]]]":
    """Weight and bias."""
    if hasattr(projection, "weight"):
        projection = (projection.weight, getattr(projection, "bias", None))
    weight, bias = projection if isinstance(projection, tuple) else (projection, None)
    weight = _matrix("projection", weight)
    if bias is None:
        return weight, None
    bias = _arrays.to_numpy("projection", bias)
    if bias.ndim != 1:
        raise ValueError(f"projection: expected a bias (D_P), found shape {bias.shape}")
    return weight, np.ascontiguousarray(bias, dtype=np.float32)


def _matrix(name: str, values: Any) -> "npt.NDArray[np.float32]":
    array = _arrays.to_numpy(name, values)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected an array of two axes, found shape {array.shape}")
    return _arrays.floats(name, array)


def _without_padding(texts: "npt.NDArray[Any]", mask: "npt.NDArray[Any]") -> "list[npt.NDArray[Any]]":
    """The states of each text that its mask keeps."""
    if texts.ndim != 3 or mask.shape != texts.shape[:2]:
        raise ValueError(f"mask: expected shape (N, n) beside texts (N, n, D), found {mask.shape} beside {texts.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("mask: expected zeros and ones")
    return [text[kept] for text, kept in zip(texts, mask.astype(bool))]
