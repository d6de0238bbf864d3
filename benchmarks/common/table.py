"""What a benchmark found: rows for people, gates for machines."""

from __future__ import annotations

from dataclasses import dataclass, field

Cell = str | float


@dataclass
class Table:
    """One workload's findings.

    Args:
        title: what was done.
        notes: how to read it.
    """

    title: str
    notes: str
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)
    """By the name of what was measured. One that could not run has ``why`` only."""
    gates: dict[str, bool] = field(default_factory=dict)
    """What has to hold on any machine, however busy it is; never a time."""

    def add(self, label: str, **cells: Cell) -> None:
        """Add a row."""
        self.rows[label] = cells

    def text(self) -> str:
        """Return it for people."""
        heads = list(dict.fromkeys(head for cells in self.rows.values() for head in cells if head != "why"))
        lines = [["", *(head.replace("_", " ") for head in heads)]]
        for label, cells in self.rows.items():
            lines.append([label, *(_shown(cells.get(head, "-")) for head in heads)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads) + 1)]
        shown = [_joined(line, widths) for line in lines]
        for number, cells in enumerate(self.rows.values(), start=1):
            if "why" in cells:
                shown[number] = f"{lines[number][0].ljust(widths[0])}  {cells['why']}"
        told = [f"{'ok    ' if good else 'FAILED'} {what}" for what, good in self.gates.items()]
        return "\n".join([f"## {self.title}", self.notes, "", *shown, "", *told, ""])


def _shown(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:,.0f}" if cell == int(cell) or abs(cell) >= 100 else f"{cell:.2f}"  # noqa: PLR2004 -- 3 digits


def _joined(line: list[str], widths: list[int]) -> str:
    first, *others = (
        cell.ljust(width) if not column else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()
