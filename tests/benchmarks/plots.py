"""Pictures of how the work grows, as PNG and SVG, both axes logarithmic."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

TITLES: Final = {
    "connections": ("connections, 128 B in flight on each", "server CPU time of a message (µs)"),
    "sizes": ("size of a message", "server CPU time of an echo (µs)"),
    "broadcasts": ("sessions that a text of 1 KiB is sent to", "server CPU time of a session (µs)"),
}


def _short(size: int) -> str:
    """A number of bytes."""
    for unit, one in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= one:
            return f"{size // one} {unit}"
    return f"{size} B"


def draw(growth: dict[str, dict[str, dict[str, float]]], folder: Path) -> list[Path]:
    """One picture for each kind of growth; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullLocator

    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "trioktor"  # the same figures give the same file
    files = []
    for kind, servers in growth.items():
        figure: Any
        axes: Any
        figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
        for name, points in servers.items():
            xs = [int(x) for x in points]
            is_ours = name.startswith("trioktor")
            axes.plot(
                xs,
                list(points.values()),
                marker="o",
                markersize=4,
                linewidth=2.5 if is_ours else 1.2,
                linestyle="--" if name == "bare Trio" else "-",
                label=name,
                zorder=3 if is_ours else 2,
            )
        axes.set_xscale("log", base=2 if kind == "sizes" else 10)
        axes.set_yscale("log")
        ticks = sorted({int(x) for points in servers.values() for x in points})
        axes.set_xticks(ticks, [_short(tick) if kind == "sizes" else f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:,.0f}" if f"{value:e}"[0] in "125" else ""))
        axes.set_xlabel(TITLES[kind][0])
        axes.set_ylabel(TITLES[kind][1])
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
        for suffix in ("png", "svg"):
            file = folder / f"{kind}.{suffix}"
            figure.savefig(file, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
            files.append(file)
        plt.close(figure)
    return files
