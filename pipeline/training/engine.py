"""DeepSpeed behind a handful of verbs: forward, backward, step, evaluate, and whole fp32 tensors in and out.

With gradient_norm, its own helper, the only module that imports DeepSpeed. Knows nothing of recipes, data or tickets.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.partition_parameters import GatheredParameters
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import nn

from data_prep.errors import UserError
from pipeline.recipes import engine_config
from pipeline.training.gradient_norm import GradientNorm
from pipeline.training.ranks import Ranks

State = dict[str, torch.Tensor]


@cache
def _let_muon_leave_unused_matrices() -> None:
    """From now on a matrix whose whole gradient is zero stays where it is under Muon, and its momentum as it was.

    That is a matrix of a layer that was skipped in the whole step. Newton-Schulz gives the momentum of earlier steps
    full length again, however far it has decayed, so every step that skips a layer would move it on by a full step. In
    AdamW momentum fades, and a gradient moves the weights equally far in all.
    """
    # Imported here because it imports torch's compiler, which AdamW does not need.
    from deepspeed.runtime.zero.muon import muon_optimizer, original_muon

    update_of_deepspeed = original_muon.muon_update

    def muon_update(grad: torch.Tensor, momentum: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        used, before = grad.any(), momentum.clone()
        update = update_of_deepspeed(grad, momentum, *args, **more)
        momentum.copy_(torch.where(used, momentum, before))
        return torch.where(used, update, 0)

    # DeepSpeed's ZeRO optimisers look it up when they step; without ZeRO its own name for it counts.
    original_muon.muon_update = muon_optimizer.muon_update = muon_update


@contextmanager
def _muon_inside_layers_only() -> Iterator[None]:
    """DeepSpeed tags by name and would give Muon the matrices of a sentence head too: those go to AdamW."""
    tag = deepspeed.set_optimizer_flags

    def tag_layers(config: Any, model: nn.Module) -> None:
        tag(config, model)
        for name, parameter in model.named_parameters():
            if getattr(parameter, "use_muon", False) and ".layers." not in name:
                setattr(parameter, "use_muon", False)  # noqa: B010, DeepSpeed's own mark

    deepspeed.set_optimizer_flags = tag_layers
    try:
        yield
    finally:
        deepspeed.set_optimizer_flags = tag


class Engine:
    """One model in one DeepSpeed engine. `config` is what engine_config.join returns."""

    def __init__(
        self,
        model: nn.Module,
        config: dict[str, Any],
        parameter_groups: list[dict[str, Any]],
        ranks: Ranks,
    ) -> None:
        # DeepSpeed would compile a shared-memory all-reduce here that only its inference path calls. Without it no
        # C++ compiler is needed, no build lock can go stale and nothing stays behind in /dev/shm.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        warnings.filterwarnings(
            "ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning
        )  # DeepSpeed's calls
        if ranks.device.type == "cpu":
            # Muon's kernels are torch.compile'd: minutes of compilation to save milliseconds on a CPU.
            torch.compiler.set_stance("force_eager")
        if ranks.device.type == "cpu" and config.get("fp16", {}).get("enabled"):
            raise UserError("fp16 needs a GPU and there is none: use a bf16 config or ds_configs/cpu.json")
        self.ranks = ranks
        self.zero_stage: int = config.get("zero_optimization", {}).get("stage", 0)
        self.accumulation: int = config["gradient_accumulation_steps"]
        self.needs_every_gradient: bool = engine_config.needs_every_gradient(config)
        with _muon_inside_layers_only():
            self.deepspeed, *_ = deepspeed.initialize(
                model=model, model_parameters=parameter_groups, config=config, dist_init_required=False
            )
        self._parameters = dict(self.deepspeed.module.named_parameters())
        for name, parameter in self._parameters.items():
            # DeepSpeed's Muon reads the number of row blocks to orthogonalise apart: Q, K and V of the fused weight.
            if getattr(parameter, "use_muon", False) and name.endswith("attention.qkv.weight"):
                parameter.muon_num_heads = 3
        if any(group.get("use_muon") for group in self.groups):
            _let_muon_leave_unused_matrices()
        self._gradient_norm = GradientNorm(
            self.deepspeed, self.zero_stage, engine_config.offloads_optimizer(config), ranks
        )

    @property
    def module(self) -> nn.Module:
        return self.deepspeed.module

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's parameter groups, as DeepSpeed rebuilt them."""
        return self.deepspeed.optimizer.param_groups

    @property
    def loss_scale(self) -> float:
        """The factor fp16 puts on the loss before backward; 1 otherwise."""
        if not self.deepspeed.fp16_enabled():
            return 1.0
        return float(self.deepspeed.optimizer.loss_scale)

    def mean_counts(self, counts: Mapping[str, int]) -> State:
        """The numbers `counts` of this rank's step as means over all ranks' micro-batches of the step, (). Collective.

        DeepSpeed takes the mean of the gradients over micro-batches and ranks. A loss that is a sum over one of these
        makes it the gradient of the mean over all labels of the step, however unequally they lie. 0 is taken for 1.
        """
        # One all-reduce a step, and no look at its result, which would make a GPU wait.
        whole = torch.tensor(list(counts.values())).to(self.ranks.device, non_blocking=True)
        means = self.ranks.sum(whole).clamp(min=1) / (self.accumulation * self.ranks.world_size)
        return dict(zip(counts, means.unbind(), strict=True))

    def forward(self, batch: State, **extra: Any) -> Any:
        """The model's output for one micro-batch (keyword arguments of the model)."""
        moved = {name: tensor.to(self.ranks.device, non_blocking=True) for name, tensor in batch.items()}
        return self.deepspeed(**moved, **extra)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients; DeepSpeed divides by the number of accumulation steps."""
        with self._gradient_norm.noting():
            self.deepspeed.backward(loss)

    def micro_step(self) -> bool:
        """Close a micro-batch. True when it ended an optimiser step."""
        if not self.deepspeed.is_gradient_accumulation_boundary():
            self.deepspeed.step()
            return False
        with self._gradient_norm.of_step(self.loss_scale):
            self.deepspeed.step()
        return True

    @property
    def step_applied(self) -> bool:
        """False when the latest optimiser step was left out because a gradient had overflowed in fp16."""
        return bool(self.deepspeed.was_step_applied())

    def grad_norm(self) -> float | None:
        """Norm of the latest step's mean gradient, before Muon and clipping; None where the engine config turns it off.

        Collective.
        """
        return self._gradient_norm.latest()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients."""
        self.deepspeed.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.deepspeed.train()

    def weights(self) -> State:
        """Every parameter whole, in fp32 on the CPU, from the masters where there are any. Collective."""
        return {name: self._whole(parameter) for name, parameter in self._parameters.items()}

    def set_weights(self, state: State) -> None:
        """Replace every parameter and its fp32 master. Collective; shapes and names must be the engine's."""
        for name, parameter in self._parameters.items():
            value = state[name].to(self.ranks.device, torch.float32)
            with (
                GatheredParameters([parameter], modifier_rank=0, enabled=self.zero_stage == 3),
                torch.no_grad(),
            ):
                parameter.copy_(value)
            safe_set_full_fp32_param(parameter, value)

    def moments(self) -> dict[str, State]:
        """Optimiser moments whole, by kind then parameter name, in fp32 on the CPU. Collective; after a step."""
        self._link_moments()
        found: dict[str, State] = {}
        for name, parameter in self._parameters.items():
            for kind in self._moment_kinds(parameter):
                value = safe_get_full_optimizer_state(parameter, kind)
                found.setdefault(kind, {})[name] = value.detach().to("cpu", torch.float32, copy=True)
        if self._keeps_whole_momenta:
            found["momentum_buffer"] = self._gathered_momenta()
        return found

    def inherit(self, weights: State, moments: dict[str, State], steps: int, batch: State) -> None:
        """Start from another run's weights and optimiser moments after `steps` of its steps. Collective.

        DeepSpeed makes its optimiser states in the first step only, so one step is taken on `batch` at learning rate
        0 and everything it touched is then overwritten.
        """
        for group in self.groups:
            group["lr"] = 0.0
        for _ in range(self.accumulation):
            self.backward(self.forward(batch).loss)
            self.micro_step()
        if not self.step_applied:
            raise RuntimeError("the step that creates the optimiser states was skipped: a gradient overflowed")
        self._link_moments()
        self.set_weights(weights)
        for name, parameter in self._parameters.items():
            for kind in self._moment_kinds(parameter):
                safe_set_full_optimizer_state(parameter, moments[kind][name].to(self.ranks.device), kind)
        if self._keeps_whole_momenta:
            for name, momentum in self._local_momenta():
                momentum.copy_(moments["momentum_buffer"][name].flatten())
        inner = getattr(self.deepspeed.optimizer, "optimizer", self.deepspeed.optimizer)
        for state in inner.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"].fill_(steps)
            elif "step" in state:
                state["step"] = steps

    def _link_moments(self) -> None:
        # ZeRO 1 and 2 link parameters to their optimiser states right after the first group's first step, when the
        # other groups have none yet; linked again here, every group is found.
        optimizer = self.deepspeed.optimizer
        if hasattr(optimizer, "_hp_optimizer_states_linked"):
            optimizer._hp_optimizer_states_linked = False
            optimizer._lazy_init_hp_params_optimizer_state()

    def _moment_kinds(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """The moments DeepSpeed maps to this parameter."""
        if not getattr(parameter, "use_muon", False):
            return ("exp_avg", "exp_avg_sq")
        return () if self._keeps_whole_momenta else ("momentum_buffer",)

    @property
    def _keeps_whole_momenta(self) -> bool:
        # Without offload, ZeRO 1 and 2 keep Muon's momentum not as a partition but whole for every matrix that
        # touches this rank's partition, so DeepSpeed's own accessors cannot find it.
        optimizer = self.deepspeed.optimizer
        has_muon = any(group.get("use_muon") for group in self.groups)
        return has_muon and self.zero_stage in (1, 2) and not optimizer.cpu_offload

    def _local_momenta(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(parameter name, flat view of its momentum) for every matrix this rank keeps one of."""
        optimizer = self.deepspeed.optimizer
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        for index, group in enumerate(optimizer.optimizer.param_groups):
            if not group.get("use_muon"):
                continue
            state = optimizer.optimizer.state[group["params"][0]]
            offset = 0
            for parameter in optimizer.params_in_partition[index]:
                yield names[id(parameter)], state["momentum_buffer"].narrow(0, offset, parameter.numel())
                offset += parameter.numel()

    def _gathered_momenta(self) -> State:
        mine = dict(self._local_momenta())
        whole: State = {}
        for name, parameter in self._parameters.items():
            if not getattr(parameter, "use_muon", False):
                continue
            # A matrix on a partition's border is kept, alike, by both neighbours: hence the count.
            summed = torch.zeros(parameter.numel() + 1, device=self.ranks.device)
            if name in mine:
                summed[:-1], summed[-1] = mine[name].float(), 1.0
            self.ranks.sum(summed)
            whole[name] = (summed[:-1] / summed[-1]).reshape(parameter.shape).cpu()
        return whole

    def _whole(self, parameter: nn.Parameter) -> torch.Tensor:
        whole = safe_get_full_fp32_param(parameter)
        if whole is None:
            whole = parameter.detach()
        return whole.detach().to("cpu", torch.float32, copy=True)
