"""A training step as one CUDA graph: forward and backward pass are recorded once and replayed.

A step of small nets has hundreds of kernels that each run for microseconds, and the GPU waits for
Python to launch them. A replay launches all of them at once. The optimizer's step, the learning
rate and all callbacks stay outside, so they work as in any other run.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from kd_lightning.methods.step import Cached, Step

WARM_UP = 3  # steps before the recording, in which libraries choose their kernels


class Recording(Protocol):
    """Work that can be done again on the same tensors."""

    def replay(self) -> None: ...


def record(work: Callable[[], None]) -> Recording:
    """Records the kernels that ``work`` launches as a CUDA graph, without running them."""
    graph = torch.cuda.CUDAGraph()
    # torch's own stream would be on the GPU of the first recording of this process
    stream = torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    return graph


class RecordedStep:
    """Replays a step, with the gradients of all parameters.

    The first steps, and batches of other shapes than the recorded ones, are computed as usual:
    ``has_gradients`` tells whether the last step has computed its gradients already. The tensors of
    a replayed step are valid until the next step.

    Args:
        step: (x, y, cached, progress) -> ``Step``. It must not wait for the device, nor depend on
            anything but its tensors, the parameters, the default generator, and ``variant``.
        parameters: whose gradients are computed.
        scale: loss -> the loss whose gradients are computed (fp16 scales it).
        variant: returns the state that chooses what a step computes. The step is recorded again
            when it changes.
        record: work -> its recording.
    """

    def __init__(
        self,
        step: Callable[..., Step],
        parameters: Iterable[nn.Parameter],
        *,
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
        variant: Callable[[], Hashable] = lambda: None,
        record: Callable[[Callable[[], None]], Recording] = record,
    ) -> None:
        self.step = step
        self.parameters = list(parameters)
        self.scale = scale
        self.variant = variant
        self.record = record
        self.has_gradients = False
        self._key: Hashable = None  # of the steps that are counted, and then recorded
        self._count = 0
        self._recording: Recording | None = None

    def __call__(self, x: Tensor, y: Tensor, cached: Cached, progress: Tensor) -> Step:
        named = {"x": x, "y": y, "progress": progress, **(cached or {})}
        variant = self.variant()
        key = variant, tuple((name, t.shape, t.dtype) for name, t in named.items())
        if self._recording is None or variant != self._key[0]:
            self._count_steps_of(key)
            if self._count > WARM_UP:
                self._record(named, has_cache=cached is not None)
        if self._recording is not None and key == self._key:
            return self._replay(named)
        self.has_gradients = False
        return self.step(x, y, cached, progress)

    def _count_steps_of(self, key: Hashable) -> None:
        if key != self._key:
            self._key, self._count, self._recording = key, 0, None
        self._count += 1

    def _record(self, named: dict[str, Tensor], *, has_cache: bool) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in named.items()}
        x, y, progress, *_ = self._inputs.values()
        cached = dict(list(self._inputs.items())[3:]) if has_cache else None

        def work() -> None:
            step = self.step(x, y, cached, progress)
            with torch.autocast(x.device.type, enabled=False):
                self.scale(step.loss).backward()
            self._result = step._replace(loss=step.loss.detach())

        for parameter in self.parameters:
            parameter.grad = None  # the recorded step makes its own, which stay where they are
        torch.clear_autocast_cache()  # weights that were cast before would never change again
        self._recording = self.record(work)
        torch.clear_autocast_cache()
        self._gradients = [parameter.grad for parameter in self.parameters]

    def _replay(self, named: dict[str, Tensor]) -> Step:
        torch._foreach_copy_(list(self._inputs.values()), list(named.values()))
        self._recording.replay()
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            if parameter.grad is not gradient:  # validation and plain steps put others in its place
                parameter.grad = gradient
        self.has_gradients = True
        return self._result
