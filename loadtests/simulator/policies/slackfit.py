"""SlackFit: the variant and batch whose time comes closest to the head's remaining slack.

Source: Khare, Garg, Kalra, Grandhi, Stoica, Tumanov: "SuperServe: Fine-Grained Inference Serving for Unpredictable
Workloads", NSDI 2025 (arXiv 2312.16733).

What the paper does. Queries wait in one queue by earliest deadline. Offline, the range of predicted times over all
(variant, batch) pairs is cut into evenly sized latency buckets, and each bucket holds the pairs whose time falls into
it. When a worker is free, the remaining slack of the most urgent query picks the bucket just below it, and in that
bucket the pair with the largest batch. The reasoning: slack shrinks as the queue grows, so low-latency buckets, with
small variants and short work, are used under load, and high-latency buckets, with accurate variants, when it is calm.

What is done here. The same, with the gateway's profiles, safety quantile and overheads. Two points are decided in the
policy's favour. Pairs with a larger batch than requests are queued are left out, so that a lone query is not given a
small variant on account of a batch that it cannot fill. Among pairs of equal batch in a bucket the most accurate is
taken. Admission, expiry and the setting aside of what is late are the gateway's; members of a batch beyond the head
need not be on time themselves, as in the paper, which looks at the head only.

When it is wrong: the head's slack says nothing of how many wait behind it. A burst arrives with full slack, the head
is given the most accurate variant, and those behind are late; on CPUs, where a batch of b takes about b times as long,
no batch makes up for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtests.simulator.policies.heads import first_timely, run_late
from loadtests.simulator.policy import Always, LatePolicy
from service.policy.situation import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.policy.situation import Situation, Waiting


@dataclass(frozen=True, slots=True)
class SlackFit:
    """Chooses by the head's slack; ``buckets`` is into how many parts the range of times is cut."""

    buckets: int = 32

    def __call__(self, queue: Sequence[Waiting], situation: Situation) -> Run | None:
        """Run the most urgent request that can be on time, with those that share its run."""
        first = first_timely(queue, situation)
        if first is None:
            return run_late(queue, situation)
        head, costs = queue[first], situation.costs
        mates = [place for place in range(first + 1, len(queue)) if _can_share(queue[place], head)]
        most = min(situation.max_rows // head.rows, 1 + len(mates))
        slack_s = head.due_s - situation.now_s
        times = [
            (costs.of(name, head.rows * batch), batch, -rank, name)
            for rank, name in enumerate(head.candidates)
            for batch in range(1, most + 1)
        ]
        fitting = [pair for pair in times if pair[0] <= slack_s]
        least_s = min(costs.of(name, head.rows) for name in head.candidates)
        largest_s = max(costs.of(name, situation.max_rows) for name in head.candidates)
        width_s = (largest_s - least_s) / self.buckets or 1.0
        highest = max(int((pair[0] - least_s) / width_s) for pair in fitting)
        bucket = [pair for pair in fitting if int((pair[0] - least_s) / width_s) == highest]
        predicted_s, batch, _, name = max(bucket, key=lambda pair: (pair[1], pair[2]))
        return Run(name, (first, *mates[: batch - 1]), predicted_s)


def _can_share(item: Waiting, head: Waiting) -> bool:
    same = item.batch_key == head.batch_key and item.candidates == head.candidates and item.rows == head.rows
    return same and item.may_share


POLICY = LatePolicy("slackfit", Always(SlackFit()))
