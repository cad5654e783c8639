"""Two ranks that forget to average their gradients: what the two-rank test must find out."""

from pytorch_lightning.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.nn.parallel import DistributedDataParallel


class Apart(DDPStrategy):
    """DDP whose ranks keep their gradients to themselves (Lightning registers such a hook on GPUs
    alone).
    """

    def configure_ddp(self) -> None:
        """Wrap the model, then put the hook in."""
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.register_comm_hook(None, noop_hook)
