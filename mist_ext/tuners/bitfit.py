"""BitFit (Ben Zaken et al., arXiv 2106.10199): the bias terms alone are tuned."""

from __future__ import annotations

from torch import nn

from mist_ext.config import TuningOptions
from mist_ext.tuners.contrastive import tunable
from mist_ext.tuners.full import Full


class BitFit(Full):
    """Every bias of the backbone, those of its norms included, follows its whole gradient in every step."""

    lr_option = "bitfit_lr"

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        super().check(backbone, options)
        if not _biases(tunable(backbone, options)):
            where = f" that layers {options.layers!r} names" if options.layers else ""
            raise ValueError(
                f"tuner 'bitfit' tunes biases, but {type(backbone).__name__} has no parameter named bias{where}"
            )

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        return _biases(self.tunable())


def _biases(parameters: list[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in parameters if name.rpartition(".")[2] == "bias"]
