"""The order of tasks, on random graphs: what may start, what is skipped, and what is a cycle."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.graph import Claim, Needs, before, cycle, order, step


@st.composite
def graphs(draw: st.DrawFn) -> Needs:
    """Graphs without cycles, listed in any order."""
    size = draw(st.integers(0, 12))
    names = [f"t{at}" for at in range(size)]
    needs = {
        name: tuple(draw(st.lists(st.sampled_from(names[:at]), max_size=4, unique=True)))
        if at
        else ()
        for at, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


def all_needs(needs: Needs, name: str) -> set[str]:
    return {name for need in needs[name] for name in {need, *all_needs(needs, need)}}


@given(graphs())
def test_an_order_has_every_task_once_after_all_that_it_needs(needs):
    found = order(needs)
    assert sorted(found) == sorted(needs)
    for name, wanted in needs.items():
        assert all(found.index(need) < found.index(name) for need in wanted)
    assert cycle(needs) == ()


def test_where_needs_leave_it_open_the_order_is_the_files():
    assert order({"c": (), "a": ("b",), "b": (), "d": ()}) == ("c", "b", "a", "d")


@given(graphs())
def test_what_comes_before_a_task_is_all_that_it_needs_at_any_distance(needs):
    assert before(needs) == {name: all_needs(needs, name) for name in needs}


@given(graphs(), st.data())
def test_a_cycle_is_found_and_named_by_its_members(needs, data):
    names = list(needs)
    if not names:
        return
    first = data.draw(st.sampled_from(names))
    last = data.draw(
        st.sampled_from([name for name in names if first in all_needs(needs, name)] or [first])
    )
    round_ = cycle({**needs, first: (*needs[first], last)})
    assert round_[0] == round_[-1]
    assert len(set(round_)) == len(round_) - 1
    for one, other in pairwise(round_):
        assert other in (*needs[one], *((last,) if one == first else ()))


def test_tasks_behind_a_cycle_are_not_blamed_for_it():
    assert cycle({"behind": ("a",), "a": ("b",), "b": ("a",), "fine": ()}) == ("a", "b", "a")


@given(graphs(), st.integers(1, 4), st.randoms(use_true_random=False), st.data())
def test_any_run_of_a_graph_keeps_order_room_and_folders_and_skips_what_it_must(
    needs: Needs, room: int, chance: random.Random, data: st.DataObject
):
    """Tasks end in any order, some of them badly; nothing waits that could go on."""
    failing = data.draw(st.sets(st.sampled_from(list(needs)))) if needs else set()
    claims = {
        name: Claim(folder=chance.choice("xy"), alone=chance.random() < 0.5)
        for name in needs
        if chance.random() < 0.7
    }
    ended: dict[str, bool] = {}
    running: set[str] = set()
    while len(ended) < len(needs):
        now = step(needs, ended=ended, running=running, room=room, claims=claims)
        for name, need in now.skip.items():
            assert ended[need] is False
            assert name not in running
            ended[name] = False
        for name in now.start:
            assert all(ended[need] for need in needs[name])
            running.add(name)
        assert len(running) <= room
        assert_no_clash([claims[name] for name in running if name in claims])
        assert running or len(ended) == len(needs), "nothing runs and nothing is over"
        if running:
            over = chance.choice(sorted(running))
            running.discard(over)
            ended[over] = over not in failing
    for name in needs:
        lost = failing & {name, *all_needs(needs, name)}
        assert ended[name] == (not lost)
    assert step(needs, ended=ended, running=(), room=room) == step({}, ended={}, running=(), room=1)


def assert_no_clash(held: list[Claim]) -> None:
    for at, one in enumerate(held):
        for other in held[at + 1 :]:
            assert one.folder != other.folder or not (one.alone or other.alone)


def test_a_task_names_the_first_of_its_needs_that_did_not_succeed():
    needs = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",)}
    found = step(needs, ended={"b": False}, running={"a"}, room=4)
    assert dict(found.skip) == {"c": "b", "d": "c"}
