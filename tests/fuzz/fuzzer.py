"""A fuzzer that keeps what was answered in a way not seen before, and mutates it further."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from airflow_provider_rocksdb.core.errors import CorruptionError, NoSpaceError, NotSupportedError
from tests.fuzz.targets import Target

_REFUSALS = (CorruptionError, NotSupportedError, NoSpaceError)
_SLOW_SECONDS = 5.0
_MOST_CORPUS = 3000
_NUMBERS = [0, 1, 7, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


@dataclass
class Seen:
    """What came of a run: inputs, those that were read without an error, different answers, and what is wrong."""

    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    answers: set[str] = field(default_factory=set)
    wrong: dict[str, bytes] = field(default_factory=dict)


def fuzz(target: Target, numbers: Random, goes_on: Callable[[Seen], bool]) -> Seen:
    """Read mutated inputs; a reader refuses them by its own errors, or reads them."""
    seen = Seen()
    corpus = target.seeds()
    for data in corpus:
        _try(target, data, seen)
    while goes_on(seen):
        seed = numbers.choice(corpus)

        def mutate(data: bytes) -> bytes:
            return _mutate(data, numbers.choice(corpus), numbers)

        data = target.mutate_whole(seed, mutate, numbers) if numbers.random() < 0.5 else mutate(seed)
        if _try(target, data, seen) and len(corpus) < _MOST_CORPUS:
            corpus.append(data)
    return seen


def _try(target: Target, data: bytes, seen: Seen) -> bool:
    """Read one input; return whether the answer is new."""
    began = time.process_time()
    try:
        answer = target.read(data)
        seen.accepted += 1
    except _REFUSALS as error:
        answer = str(error)
    except BaseException as error:  # noqa: BLE001 -- any other error is a finding
        answer = f"{type(error).__name__}: {error}"
        seen.wrong.setdefault(_shape(answer), data)
    spent = time.process_time() - began
    seen.slowest = max(seen.slowest, spent)
    if spent > _SLOW_SECONDS:
        seen.wrong.setdefault(f"took {spent:.0f} s", data)
    seen.inputs += 1
    is_new = _shape(answer) not in seen.answers
    seen.answers.add(_shape(answer))
    return is_new


def _shape(answer: str) -> str:
    """Return an answer without what differs each time."""
    plain = re.sub(r"b?'[^']*'|b?\"[^\"]*\"|0x[0-9a-f]+", "#", answer)
    return re.sub(r"[^A-Za-z: ]+", "#", plain)[:60]


def _mutate(data: bytes, other: bytes, numbers: Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(numbers.choice([1, 1, 1, 2, 4, 8])):
        start = numbers.randrange(len(mutated) + 1)
        length = numbers.choice([1, 1, 2, 4, 8, 32, 300])
        match numbers.randrange(8):
            case 0 | 1 if start < len(mutated):
                mutated[start] ^= 1 << numbers.randrange(8)
            case 2 if start < len(mutated):
                mutated[start] = numbers.randrange(256)
            case 3:
                size = numbers.choice([1, 2, 4, 8])
                value = numbers.choice(_NUMBERS) & ((1 << 8 * size) - 1)
                mutated[start : start + size] = value.to_bytes(size, numbers.choice(["little", "big"]))
            case 4:
                del mutated[start : start + length]
            case 5:
                place = numbers.randrange(len(mutated) + 1)
                mutated[start:start] = mutated[place : place + length]
            case 6:
                place = numbers.randrange(len(other) + 1)
                mutated[start : start + length] = other[place : place + length]
            case 7 if numbers.random() < 0.3:
                del mutated[start:]
            case _:
                mutated[start:start] = numbers.randbytes(length)
    return bytes(mutated)
