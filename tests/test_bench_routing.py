"""What `scripts/bench routing` prints is what the table says, by a calculation of its own."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from scripts.benches import routing
from scripts.benches.routing import Item, Verifier, items_of, made, report

TOLERANCE = 0.5  # points


def printed(lines: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Quality and spend in percent, by policy."""
    found: dict[str, tuple[float, float]] = {}
    for line in lines[1:]:
        match = re.match(r"(.+?) +quality +([\d.]+)% .*?spend +([\d.]+)%", line)
        assert match is not None
        found[match[1]] = (float(match[2]), float(match[3]))
    return found


def calculated(items: Sequence[Item], verifier: Verifier) -> dict[str, tuple[float, float]]:
    solved = sum(item.paid.ok for item in items)
    price = sum(item.paid.cost for item in items)
    kept = [1 - (verifier.errs if item.home.ok else verifier.finds) for item in items]
    right, spent = 0.0, 0.0
    for item, stays in zip(items, kept, strict=True):
        right += stays * item.home.ok + (1 - stays) * item.paid.ok
        spent += item.home.cost + (1 - stays) * item.paid.cost
    at_home = sum(item.home.ok for item in items)
    out = 1 - sum(kept) / len(items)
    drawn = out * solved + (1 - out) * at_home
    drawn_price = out * price + (1 - out) * sum(item.home.cost for item in items)
    best = sum(item.home.ok or item.paid.ok for item in items)
    best_price = sum(
        item.paid.cost if item.paid.ok and not item.home.ok else item.home.cost for item in items
    )
    return {
        "cascade": (100 * right / solved, 100 * spent / price),
        "always cloud": (100.0, 100.0),
        "always local": (100 * at_home / solved, 100 * sum(i.home.cost for i in items) / price),
        "oracle": (100 * best / solved, 100 * best_price / price),
        f"random ({out:.0%} to the cloud)": (100 * drawn / solved, 100 * drawn_price / price),
    }


@pytest.mark.parametrize("rates", [(1.0, 0.0), (0.8, 0.2), (0.5, 0.1)])
def test_the_figures_agree_with_an_independent_calculation(rates: tuple[float, float]) -> None:
    items, verifier = items_of(made(200), "home", "paid"), Verifier(finds=rates[0], errs=rates[1])
    found = printed(report(items, verifier, resamples=20))
    for name, (quality, spend) in calculated(items, verifier).items():
        assert abs(found[name][0] - quality) <= TOLERANCE
        assert abs(found[name][1] - spend) <= TOLERANCE
    assert len(found) == 6


def test_a_table_of_ones_own_is_read_and_a_wrong_row_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "RESAMPLES", 10)
    monkeypatch.setattr(routing, "decisions", lambda: True)
    rows: list[Mapping[str, object]] = [
        {"task": "a", "agent": "small", "ok": True, "cost": 0, "calls": 3, "prompt": "fix it"},
        {"task": "a", "agent": "big", "ok": True, "cost": 1.0, "calls": 3},
        {"task": "b", "agent": "big", "ok": True, "cost": 1.0, "calls": 3},
    ]
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert routing.main([str(table), "--local", "small", "--cloud", "big"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 items;")
    assert "prompt length" in told
    table.write_text("".join(json.dumps({**row, "prompt": None}) + "\n" for row in rows))
    assert routing.main([str(table), "--local", "small", "--cloud", "big"]) == 0
    assert "prompt length" not in capsys.readouterr().out  # nobody knows it: no figure is made up
    assert routing.main([str(table)]) == 2
    assert "no item has 'home' and 'paid'" in capsys.readouterr().err
    table.write_text('{"task": "a"}\n')
    assert routing.main([str(table)]) == 2
    assert "row 1 has not all of task, agent, ok, cost" in capsys.readouterr().err
