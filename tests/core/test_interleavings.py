"""Backups and prunes at the same time, in every order of their steps: no committed backup ever lacks an object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_provider_rocksdb.core import prune, repository, repository_marks
from airflow_provider_rocksdb.core.repository_marks import LastLook
from airflow_provider_rocksdb.core.repository_objects import Metas, Objects
from tests.core import interleaving
from tests.core.interleaving import ROOT, Actor, World

HOUR, DAY = 3600.0, 86400.0

NewWorld = Callable[..., World]


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Stay on one core, of each worker another: only one actor ever runs, and to wake another core takes long."""
    cores = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the files that backups are made of."""
    place = tmp_path_factory.mktemp("sources")
    found = {letter: place / f"{number:06}.blob" for number, letter in enumerate("ABCD", 11)}
    for letter, path in found.items():
        path.write_bytes(letter.encode() * 20)
    return found


@pytest.fixture
def new_world(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[NewWorld]:
    """Give a way to make worlds, of which the newest is the real one: empty, or as another was."""
    worlds: list[World] = []

    def make(template: World | None = None) -> World:
        for world in worlds:
            world.kill_all()
        worlds[:] = [template.copy() if template else World(sources)]
        worlds[0].install(monkeypatch)
        return worlds[0]

    yield make
    make()


def alone(actor: Actor) -> Any:
    """Run an actor that nobody disturbs; return its result."""
    actor.finish()
    assert not isinstance(actor.result, BaseException), actor.result
    return actor.result


@pytest.fixture
def prepared(new_world: NewWorld) -> World:
    """Make backup 2, of D; A, B, C and the folder of backup 1 are unreferenced, and were marked more than a day ago."""
    world = new_world()
    alone(world.backup("ABCD"))
    world.advance(100)
    alone(world.backup("D"))
    world.advance(100)
    result = alone(world.prune())
    assert (result.removed_backups, result.marked.objects) == ((1,), 4)
    world.advance(DAY + 100)
    return world


def test_one_after_the_other(new_world: NewWorld, prepared: World) -> None:
    """What was marked a day ago is deleted, and what is needed again is not."""
    world = new_world(prepared)
    assert alone(world.backup("ABD")).reused_files == 3
    result = alone(world.prune())
    assert (result.removed.objects, result.removed_backups) == (2, (2,))
    assert set(world.backups()) == {3}
    world.check()


Start = Callable[[World], tuple[Actor, Actor]]


def every_order(new_world: NewWorld, template: World, start: Start, pause: float = 0) -> int:
    """Try each way in which two actors interrupt each other twice; return how many there are.

    The first does so many steps, the second so many; time passes; then the first ends, and then the second.
    """
    tried = first_steps = second_steps = 0
    while True:
        world = new_world(template)
        first, second = start(world)
        for _ in range(first_steps):
            first.step()
        for _ in range(second_steps):
            if second.pending == "wait":
                world.advance(30)
            second.step()
        world.check()
        has_more = not second.is_done
        world.advance(pause)
        first.finish()
        is_last = first.steps <= first_steps
        world.check()
        second.finish()
        world.check()
        tried += 1
        second_steps += 1
        if not has_more:
            if is_last:
                return tried
            first_steps, second_steps = first_steps + 1, 0


PAIRS: dict[str, Start] = {
    "prune, backup": lambda world: (world.prune(), world.backup("ABD")),
    "backup, prune": lambda world: (world.backup("ABD"), world.prune()),
    "prune, prune": lambda world: (world.prune(), world.prune()),
    "backup, backup": lambda world: (world.backup("AB"), world.backup("AC")),
}


@pytest.mark.parametrize(
    ("pair", "pause"),
    [*((pair, 0) for pair in PAIRS), ("prune, backup", 2 * HOUR), ("backup, prune", 2 * HOUR)],
)
def test_every_order_of_two(new_world: NewWorld, prepared: World, pair: str, pause: float) -> None:
    """In whatever order two of them interrupt each other, for whatever time: no backup lacks anything."""
    assert every_order(new_world, prepared, PAIRS[pair], pause) > 300


def _run_backwards(*calls: Callable[[], object], **_: Any) -> None:
    for call in reversed(calls):
        call()


@pytest.mark.parametrize("pair", ["prune, backup", "backup, prune", "backup, backup"])
def test_every_order_of_questions(
    new_world: NewWorld, prepared: World, monkeypatch: pytest.MonkeyPatch, pair: str
) -> None:
    """What a backup asks at once may be answered the other way round, and still no backup lacks anything."""
    monkeypatch.setattr(repository, "run_together", _run_backwards)
    assert every_order(new_world, prepared, PAIRS[pair]) > 300


def every_stop(new_world: NewWorld, template: World) -> int:
    """Stop a backup after each of its steps, while two prunes a day apart and another backup run; then let it go on."""
    steps = 0
    while True:
        world = new_world(template)
        stopped = world.backup("ABD")
        for _ in range(steps):
            stopped.step()
        world.advance(10)
        world.prune().finish()
        world.advance(DAY + HOUR)
        world.prune().finish()
        world.check()
        world.backup("CD").finish()
        world.check()
        if stopped.is_done:
            return steps
        stopped.finish()
        world.check()
        steps += 1


@pytest.fixture
def before_prune(new_world: NewWorld) -> World:
    """Make backups 1 and 2; nothing is marked yet, and the next prune removes backup 1, which alone has A, B and C."""
    world = new_world()
    alone(world.backup("ABCD"))
    alone(world.backup("D"))
    world.advance(100)
    return world


def test_backup_that_sleeps(new_world: NewWorld, before_prune: World) -> None:
    """A backup that sleeps for a day, at whatever step, loses nothing, and harms no other.

    It reuses files whose last meta a prune removes meanwhile, and which another prune then deletes.
    """
    assert every_stop(new_world, before_prune) > 12


# What stands between a backup and its loss. Without any one of them, one of the searches above finds the loss.


def _begin_without_looking(look: LastLook, paths: Any) -> None:
    look._began = repository_marks.elapsed()


def _metas_first(run: Any, token: str) -> Any:
    run.metas.read()
    read, run.metas.read = run.metas.read, lambda: None
    try:
        return LOOK_AGAIN(run, token)
    finally:
        run.metas.read = read


def _read_once(metas: Metas) -> None:
    if not metas.names:
        READ(metas)


def _all_gone_ids(objects: Objects, names: Any) -> list[int]:
    ids = {int(name) for name in objects._entries["private"]}
    return sorted(ids - {int(name) for name in names})


LOOK_AGAIN, READ = prune._Prune._look_again, Metas.read

ABLATIONS: dict[str, tuple[str, Any, str, Any]] = {
    "the backup does not look at marks": ("prune, backup", LastLook, "begin", _begin_without_looking),
    "the backup reserves nothing": ("backup, prune", LastLook, "_reserve", lambda *_: None),
    "the backup waits for no prune": ("prune, backup", LastLook, "_wait_for_deletions", lambda _: None),
    "the backup does not list again": ("prune, backup", repository._Backup, "_find_wrong", lambda *_: {}),
    "the backup commits at any time": ("sleeps", repository_marks, "COMMIT_WITHIN_SECONDS", float("inf")),
    "the prune deletes at any time": ("prune, backup", prune, "DELETE_WITHIN_SECONDS", float("inf")),
    "the prune reads metas once": ("prune, backup", Metas, "read", _read_once),
    "the prune reads metas before reservations": ("backup, prune", prune._Prune, "_look_again", _metas_first),
    "the prune reads no reservations": ("backup, prune", prune, "read_reservation", lambda *_: frozenset()),
    "the prune knows no grace period": ("backup, first prune", interleaving, "GRACE", 0.0),
    "the prune frees the highest id": ("sleeps", Objects, "_gone_ids", _all_gone_ids),
}


@pytest.mark.parametrize("without", ABLATIONS)
def test_every_protection_is_needed(
    new_world: NewWorld, prepared: World, before_prune: World, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    """Without any one of the protections, the search finds a backup that lacks an object, or has another's."""
    search, place, name, value = ABLATIONS[without]
    monkeypatch.setattr(place, name, value, raising=False)
    searches: dict[str, Callable[[], object]] = {
        "sleeps": lambda: every_stop(new_world, before_prune),
        "backup, first prune": lambda: every_order(new_world, before_prune, PAIRS["backup, prune"]),
        **{pair: partial(every_order, new_world, prepared, PAIRS[pair]) for pair in PAIRS},
    }
    with pytest.raises(AssertionError, match="names"):
        searches[search]()


class Machine(RuleBasedStateMachine):
    """Any number of backups and prunes, up to four at a time, stopped, killed and let go on in any order."""

    sources: dict[str, Path]

    @initialize(resolution=st.sampled_from([1.0, 0.001]), is_prepared=st.booleans())
    def begin(self, resolution: float, is_prepared: bool) -> None:
        self.patch = pytest.MonkeyPatch()
        self.world = World(self.sources, resolution=resolution)
        self.world.install(self.patch)
        self.has_backup = False
        if is_prepared:
            for blobs in ("ABCD", "D"):
                alone(self.world.backup(blobs))
            self.world.advance(10)
            alone(self.world.prune())
            self.world.advance(DAY + 10)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.kill_all()
            self.patch.undo()

    @property
    def can_start(self) -> bool:
        return len(self.world.running) < 4

    @precondition(lambda self: self.can_start)
    @rule(blobs=st.sets(st.sampled_from("ABCD"), min_size=1).map(sorted).map("".join))
    def start_backup(self, blobs: str) -> None:
        self.world.backup(blobs)

    @precondition(lambda self: self.can_start)
    @rule(keep_last=st.integers(1, 2), skew=st.sampled_from([0.0, HOUR, -HOUR]))
    def start_prune(self, keep_last: int, skew: float) -> None:
        self.world.prune(keep_last, skew)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), steps=st.integers(1, 20))
    def step(self, data: st.DataObject, steps: int) -> None:
        actor = data.draw(st.sampled_from(self.world.running))
        for _ in range(steps):
            actor.step()
            self.world.check()

    @precondition(lambda self: self.world.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.world.running)).finish()

    @precondition(lambda self: self.world.running)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.world.running)).kill()

    @rule(seconds=st.sampled_from([1.0, 59.0, 61.0, 300.0, 601.0, HOUR, DAY - 10, DAY + 10]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self.has_backup |= bool(self.world.backups())
            assert not self.has_backup or self.world.backups(), "the last backup is gone"

    @rule()
    def come_to_rest(self) -> None:
        """When all have ended or died, prunes a day apart leave nothing that no backup names.

        But the highest id's folder, and the claim of a backup that died right after its meta, which goes with it.
        """
        for actor in self.world.running:
            actor.finish()
        self.world.check()
        if not self.world.backups():
            return
        for _ in range(3):
            alone(self.world.prune(2))
            self.world.advance(DAY + 10)
        folders = {path.rpartition("/")[0] for path in self.world.files if path.startswith(f"{ROOT}/private/")}
        highest = max(folders, key=lambda folder: int(folder.rpartition("/")[2]))
        claims = {
            path for path in self.world.files if "/claim." in path and int(path.split("/")[3]) in self.world.backups()
        }
        assert {p for p in self.world.unreferenced() - claims if not p.startswith(f"{highest}/")} == set()


@pytest.mark.timeout(900)
def test_any_interleaving(sources: dict[str, Path]) -> None:
    """Whatever runs, stops, dies and goes on in whatever order: no backup lacks an object, and no litter stays."""
    Machine.sources = sources
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
