"""What the torch engine's readings must equal: the same channels in one plain forward pass of its model."""

import torch

from nr_agent.testing.engine_suite import EngineConformance


class TorchConformance(EngineConformance):
    """The suite, for torch engines."""

    def plain_readings(self, engine, plan, ids):
        with engine.quiet() as model, torch.inference_mode():
            tap = plan.install(model)
            model(input_ids=torch.tensor([ids]), use_cache=False)
            values = tap.take(len(ids)).clone()
            tap.remove()
        return values
