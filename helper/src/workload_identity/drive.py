"""The two drivers of flows: the only places where blocking and awaiting differ in carrying out a flow."""

from __future__ import annotations

from contextlib import closing
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workload_identity.steps import Flow, Step, T


def drive(flow: Flow[T], perform: Callable[[Step], object]) -> T:
    """Carry out a flow: perform each step, send the answer or throw the failure in, return the result."""
    with closing(flow):
        resume = partial(flow.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as done:
                result: T = done.value
                return result
            try:
                resume = partial(flow.send, perform(step))
            except Exception as failure:  # noqa: BLE001 - the flow decides what becomes of it
                resume = partial(flow.throw, failure)


async def drive_async(flow: Flow[T], perform: Callable[[Step], Awaitable[object]]) -> T:
    """Do the same, awaiting each step."""
    with closing(flow):
        resume = partial(flow.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as done:
                result: T = done.value
                return result
            try:
                resume = partial(flow.send, await perform(step))
            except Exception as failure:  # noqa: BLE001 - the flow decides what becomes of it
                resume = partial(flow.throw, failure)
