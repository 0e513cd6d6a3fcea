"""A linear layer in the form its device runs fastest.

On a CPU, oneDNN's kernels read weights in blocks; a plain `F.linear` re-blocks them in every call,
and GELU or a residual sum is one more pass over memory. Here the weights are blocked once, after
loading, and both are fused into the product's epilogue. On a GPU the layer is `F.linear`.

int8 (CPU only): weights rounded once, symmetrically per output channel; the input of each call is
rounded by its own largest magnitude (dynamic quantisation, per tensor, so a row's rounding depends
on its batch). Sums are in int32, results in the input's dtype.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS = 16  # a hint of oneDNN's; the blocked form is the same for every size but one
_INT8_MAX = 127
_ZERO_POINT = 128  # inputs go as uint8: without AMX, oneDNN has fast kernels for these alone

# The schemas say `Tensor`; the stubs of torch do not know these operators at all.
_mkldnn: Any = torch.ops.mkldnn
_onednn: Any = torch.ops.onednn


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN is here and has fast products of this type."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(_mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class Linear(nn.Module):
    """y = x W^T + b, with exact GELU or a residual fused where that is possible.

    `weight` [out, in] and `bias` [out] are as loaded until `pack` or `quantise` is called, once;
    then `weight` is gone, the blocked form alone is kept, and the layer stays on the CPU.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.register_buffer("_blocked", None, persistent=False)
        self.register_buffer("_scale", None, persistent=False)
        self._blocked: Tensor | None
        self._scale: Tensor | None  # float32 [out], of int8 weights

    def pack(self) -> None:
        """Block the weights for oneDNN, if it takes their type."""
        if not packs(self.weight.dtype):
            return
        self._blocked = _mkldnn._reorder_linear_weight(self.weight.data, _ROWS)
        del self.weight

    def quantise(self) -> None:
        """Round the weights to int8 and block them for oneDNN."""
        weight = self.weight.data.float()
        scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / _INT8_MAX
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        self._blocked = _onednn.qlinear_prepack(rounded, None)
        self._scale = scale
        self._zero = torch.zeros(self.out_features, dtype=torch.int64)
        self.bias = nn.Parameter(self.bias.data.float(), requires_grad=False)
        del self.weight

    def plain_weight(self) -> Tensor:
        """The weights [out, in] as loaded, whatever form they are kept in; of int8, rounded.

        Made anew in every call, but where they are plain: for what needs a backward, which oneDNN's
        products have not.
        """
        if self._scale is not None:  # an identity is not rounded: what comes out are the weights
            identity = torch.eye(self.in_features, device=self.bias.device)
            return (self._int8(identity, "none") - self.bias).t()
        if self._blocked is not None:
            return self._blocked.to_dense()
        return self.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        if self._scale is not None:
            return self._int8(hidden, "none")
        if self._blocked is not None:
            product: Tensor = _mkldnn._linear_pointwise(
                hidden, self._blocked, self.bias, "none", [], ""
            )
            return product
        return functional.linear(hidden, self.weight, self.bias)

    def gelu(self, hidden: Tensor) -> Tensor:
        """Exact GELU of the product: [..., in] to [..., out]."""
        if self._scale is not None:
            return self._int8(hidden, "gelu")
        if self._blocked is not None:
            product: Tensor = _mkldnn._linear_pointwise(
                hidden, self._blocked, self.bias, "gelu", [], "none"
            )
            return product
        activated: Tensor = functional.gelu(self(hidden))
        return activated

    def add(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """The product plus `residual` [..., out]."""
        if self._blocked is not None and self._scale is None:
            product: Tensor = _mkldnn._linear_pointwise.binary(
                hidden, residual, self._blocked, self.bias, "add"
            )
            return product
        total: Tensor = residual + self(hidden)
        return total

    def _int8(self, hidden: Tensor, epilogue: str) -> Tensor:
        rows = hidden.reshape(-1, self.in_features)
        scale = float(rows.abs().amax()) / _INT8_MAX or 1.0
        rounded = (rows * (1 / scale) + _ZERO_POINT).round_().to(torch.uint8)
        product: Tensor = _onednn.qlinear_pointwise(
            rounded, scale, _ZERO_POINT, self._blocked, self._scale, self._zero, self.bias,
            1.0, 0, hidden.dtype, epilogue, [], "none",
        )  # fmt: skip
        return product.view(*hidden.shape[:-1], self.out_features)
