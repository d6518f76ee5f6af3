"""The figures, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Figures:
    """Gathers figures of several runs.

    :ivar faults: what went wrong, one line each.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], dict[str, list[float]]] = {}
        self.faults: list[str] = []

    def add(self, name: str, unit: str, program: str, value: float) -> None:
        """One figure of one run."""
        runs = self._values.setdefault((name, unit), {}).setdefault(program, [])
        runs.append(value)
        print(f"  {name}, {program}: {_shown(value)} {unit}", flush=True)

    def fault(self, text: str) -> None:
        """Something was lost, doubled, out of order or wrong."""
        self.faults.append(text)

    def table(self) -> str:
        """Medians of all runs, proxy beside bare loop."""
        rows = [
            ("figure", "unit", "proxy", "bare", "ratio", "proxy: lowest to highest")
        ]
        for (name, unit), programs in self._values.items():
            proxy, bare = programs.get("proxy", []), programs.get("bare", [])
            spread = f"{_shown(min(proxy))} to {_shown(max(proxy))}" if proxy else ""
            ratio = f"{median(proxy) / median(bare):.2f}" if proxy and bare else ""
            medians = [_shown(median(each)) if each else "" for each in (proxy, bare)]
            rows.append((name, unit, medians[0], medians[1], ratio, spread))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                text.ljust(width) if column < 2 else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
