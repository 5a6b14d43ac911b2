"""The optimiser of hidden matrices, in the precision of the run.

PyTorch has the same, in bf16 alone: on a CPU without bf16 arithmetic that costs more than the whole pass through the
model. Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the size of an update is
matched to AdamW's as in J. Liu et al., "Muon is scalable for LLM training" (arXiv 2502.16982), section 2.2.
"""

import torch

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ITERATIONS = 5


def orthogonal(matrix: torch.Tensor, work: torch.dtype) -> torch.Tensor:
    """Close to U V^T of the singular value decomposition U S V^T of a matrix: its singular values become about one."""
    a, b, c = COEFFICIENTS
    x = matrix.to(work, copy=True)
    is_tall = x.shape[0] > x.shape[1]
    x = x.mT if is_tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal; weight decay apart from it."""

    def __init__(self, matrices, lr: float, weight_decay: float, work: torch.dtype, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.work = work

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - momentum)
                update = orthogonal(matrix.grad.lerp(state["momentum"], momentum), self.work)
                matrix.mul_(1 - lr * group["weight_decay"])
                matrix.add_(update, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)
