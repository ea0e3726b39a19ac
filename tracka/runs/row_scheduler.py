"""Decides which row a free worker gets next: the longest first, but no row that would have to wait for its GPU.

The gates and `tracka sweep` share the scheduler; it starts no process and reads no file. Worker k asks for GPU k first,
modulo the number of GPUs (`lease.hold`), so the scheduler knows beforehand which GPU a row is going to hold.
If another session holds that GPU, the row waits in its lease, and nothing else is lost.

* Rows pinned to one GPU run one after the other in any case, so together they count as one long row.
* A pinned row goes to a worker that asks for its GPU first. Another worker gets the row if there is no such worker, or
  if that other worker would be idle.
* An auto row can run anywhere and a pinned row cannot, so on a GPU the rows pinned to that GPU come first.
* A row whose GPU is held is not dealt, since the row's worker could only wait. The worker stays free and gets a row as
  soon as another row ends. While nothing runs, something is always dealt, so no row is left over.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ..campaign.matrix import AUTO, CPU

Priority = Callable[[int], tuple[float, bool, int]]  # gpu_id -> its queue's length, then what decides between equals


@dataclass(frozen=True)
class Job:
    """What the scheduler has to know of a row, or of another test. Jobs of equal cost keep the order of `index`."""

    index: int
    cost: float = 0.0  # how long the job is expected to take, in any unit
    gpu_id: int = CPU


class RowScheduler:
    """Deals jobs to workers, which are known by their numbers, on a host with `gpus` GPUs."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.queues: dict[int, list[Job]] = {}  # gpu_id -> waiting jobs, the longest last
        self.gpu_of_worker: dict[int, int] = {}  # busy worker -> the GPU that its job is expected to hold, or CPU

    def add(self, jobs: Iterable[Job]) -> None:
        """Adds jobs to those that wait."""
        for job in jobs:
            # A row whose GPU is missing fails at once, so it takes a worker but no GPU.
            has_gpu = job.gpu_id < self.gpus and self.gpus > 0
            self.queues.setdefault(job.gpu_id if has_gpu else CPU, []).append(job)
        for queue in self.queues.values():
            queue.sort(key=lambda job: (job.cost, -job.index))

    def assign(self, workers: Collection[int]) -> dict[int, Job]:
        """Deals a job to each of `workers` that is free, and returns worker -> job.

        A worker that gets no job has to wait until a job ends.
        """
        assigned: dict[int, Job] = {}
        worker_gpus = {worker % self.gpus for worker in workers} if self.gpus else set()
        for reserved in (worker_gpus, set[int]()):  # the second pass is for workers that would idle
            for worker in sorted(set(workers) - self.gpu_of_worker.keys()):
                first = self._first_free(worker)
                allowed = [queue for queue in self.queues if self._is_eligible(queue, first, reserved)]
                if allowed:
                    priority = self._priority(first, gpus_are_scarce=len(workers) > self.gpus)
                    assigned[worker] = self._take(worker, max(allowed, key=priority), first)
        return assigned

    def done(self, worker: int) -> None:
        """Frees what the worker held, once its job or the worker itself has ended."""
        self.gpu_of_worker.pop(worker, None)

    def _take(self, worker: int, queue: int, first: int) -> Job:
        job = self.queues[queue].pop()
        if not self.queues[queue]:
            del self.queues[queue]
        self.gpu_of_worker[worker] = first if queue == AUTO else queue
        return job

    def _first_free(self, worker: int) -> int:
        """Returns the GPU that an auto row of this worker would get; CPU if all GPUs are held."""
        order = ((worker + offset) % self.gpus for offset in range(self.gpus))
        return next((gpu for gpu in order if gpu not in self.gpu_of_worker.values()), CPU)

    def _is_eligible(self, queue: int, first: int, reserved: Collection[int]) -> bool:
        if queue == CPU:
            return True
        if queue == AUTO:
            return first != CPU
        return queue not in self.gpu_of_worker.values() and (queue == first or queue not in reserved)

    def _priority(self, first: int, gpus_are_scarce: bool) -> Priority:
        loads = {queue: sum(job.cost for job in jobs) for queue, jobs in self.queues.items()}
        weights = {queue: loads[queue] if queue >= 0 else jobs[-1].cost for queue, jobs in self.queues.items()}
        # With more workers than GPUs, GPUs are what is short: all rows that need one are a chain on all GPUs together.
        if gpus_are_scarce and AUTO in weights:
            weights[AUTO] = max(weights[AUTO], sum(load for queue, load in loads.items() if queue != CPU) / self.gpus)
        if first in weights and first != CPU:
            weights[first] = max(weights[first], weights.get(AUTO, 0.0))
        return lambda queue: (weights[queue], queue == first, -self.queues[queue][-1].index)
