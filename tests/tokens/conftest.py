"""A stage on which flows are played by hand: no server, no file, no loop, no waiting."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from workload_identity.clock import Instant
from workload_identity.steps import Content, Flow, NewId, Now, Read, Response, Send, Step, Unreachable, Wait

T = TypeVar("T")


@dataclass
class Stage:
    """Answers steps from lists, the last item again and again, and moves its clock when a flow waits."""

    files: Sequence[Content | Exception] = ()
    answers: Sequence[Response | Unreachable] = ()
    epoch: float = 1_000_000.0
    monotonic: float = 50.0
    seconds_per_request: float = 0.0
    steps: list[Step] = field(default_factory=list)

    def play(self, flow: "Flow[T]") -> T:
        """Carry out a flow, return its result or raise its failure."""
        answer: object = None
        failure: Exception | None = None
        try:
            while True:
                step = flow.send(answer) if failure is None else flow.throw(failure)
                self.steps.append(step)
                answer, failure = self._answer(step), None
                if isinstance(answer, Exception):
                    failure = answer
        except StopIteration as done:
            result: T = done.value
            return result

    def _answer(self, step: Step) -> object:
        match step:
            case Read():
                return self._next(self.files, Read)
            case Send():
                started = Instant(self.epoch, self.monotonic)
                self._pass(self.seconds_per_request)
                answer = self._next(self.answers, Send)
                if isinstance(answer, Response):
                    return Response(answer.status, answer.reason, answer.headers, answer.body, started)
                return answer
            case Wait(_, longest):
                self._pass(longest)
                return None
            case Now():
                return Instant(self.epoch, self.monotonic)
            case NewId():
                return f"id-{len(self.of(NewId))}"
        raise AssertionError(step)

    def _next(self, items: Sequence[Any], kind: type) -> object:
        return items[min(len(self.of(kind)), len(items)) - 1]

    def _pass(self, seconds: float) -> None:
        self.epoch += seconds
        self.monotonic += seconds

    def of(self, kind: type[T]) -> list[T]:
        """Return the steps of a kind that were asked for so far."""
        return [step for step in self.steps if isinstance(step, kind)]


@pytest.fixture
def stage() -> Stage:
    """An empty stage."""
    return Stage()


@pytest.fixture
def jwt() -> Callable[..., str]:
    """Make a token of the form of a JWT from claims."""

    def make(**claims: object) -> str:
        parts = ({"alg": "RS256", "kid": "a-key"}, claims)
        texts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        return ".".join([*texts, "c2lnbmF0dXJl"])

    return make


@pytest.fixture
def answer() -> Callable[..., Response]:
    """Make an answer: a JSON body from keywords, or the given one."""

    def make(
        status: int = 200, body: bytes | None = None, headers: dict[str, str] | None = None, **members: object
    ) -> Response:
        text = json.dumps(members).encode() if body is None else body
        named = {"content-type": "application/json"} if headers is None else headers
        return Response(status, "A Reason", named, text, Instant(0, 0))

    return make
