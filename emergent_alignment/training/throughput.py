"""How fast a training step is: its model's ideal FLOPs a second, and their share of the peak."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emergent_alignment.data.batches import StepBatch
from emergent_alignment.models.ideal import step_flops
from emergent_alignment.parallel.chips import peak_flops
from emergent_alignment.training.step_settings import StepSettings


@dataclass(frozen=True)
class Throughput:
    """What the seconds of a step are set against.

    settings  the step's model and adapters
    devices   all devices of the run; MFU is known where a data sheet of theirs is at hand
    """

    settings: StepSettings
    devices: Sequence[Any]

    def scalars(self, batch: StepBatch, rows: int, seconds: float) -> dict[str, float]:
        """`model_flops_per_second` and, on chips with a data sheet, `mfu` of a step over `rows`
        rows of all hosts that took `seconds`. Ideal FLOPs (models/ideal.py): what
        rematerialisation computes again, and what sampling and reviews cost, is not in them."""
        config, lora = self.settings.config, self.settings.lora
        flops = sum(
            step_flops(config, layout, count, lora, with_reference=referred)
            for layout, count, referred in batch.computed_layouts(rows)
        )
        peak, rates = peak_flops(self.devices), {"model_flops_per_second": flops / seconds}
        return rates if peak is None else rates | {"mfu": flops / (seconds * peak)}
