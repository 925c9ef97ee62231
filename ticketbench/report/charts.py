"""The figures: golden signals second by second, variants overlaid, as SVG that follows the page's colours.

matplotlib draws with placeholder colours which are then replaced by CSS variables, so that one drawing serves light,
dark and print. No outside text goes into a drawing: variants are told apart by the page's own legend.
"""

import functools
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS: Final = 600  # a line on the page is some 600 px wide: more points cannot be seen
LOG_FROM_RATIO: Final = 20.0  # a latency that spans more than this is unreadable on a linear axis
_EMPTY_RATIO: Final = 0.01  # the axis of a share that was 0 all the time
SIZE_INCHES: Final = (6.0, 2.75)  # 432 x 198 units: legible at 340 px (phone) and at 560 px (half a desktop page)

_SERIES: Final = 8
_SHADE, _GRID, _INK, _SLO, _OFFERED, _PHASE = "#020001", "#020002", "#020003", "#020004", "#020005", "#020006"
_FAULT, _FAULT_EDGE = "#020007", "#020008"
_VARIABLES: Final = {
    _SHADE: "var(--fig-shade)",
    _GRID: "var(--fig-grid)",
    _INK: "var(--fig-ink)",
    _SLO: "var(--fig-slo)",
    _OFFERED: "var(--fig-offered)",
    _PHASE: "var(--fig-phase)",
    _FAULT: "var(--fig-fault)",
    _FAULT_EDGE: "var(--fig-fault-edge)",
    "#000000": "var(--fig-ink)",
    **{f"#0100{i:02x}": f"var(--s{i + 1})" for i in range(_SERIES)},
}
# Line styles as dashes in units of the line's width; with 8 colours 32 variants stay distinct, and markers differ too.
_DASHES: Final[tuple[tuple[float, ...], ...]] = ((), (4, 1.6), (1.2, 1.2), (5, 1.4, 1.2, 1.4))
_MARKERS: Final = "os^DvPX*"
# The same markers for the legend, within a box of 10 x 10 around the origin.
_MARKER_PATHS: Final = {
    "o": "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "s": "M-3-3h6v6h-6z",
    "^": "M0-3.6L3.6 3h-7.2z",
    "D": "M0-4L4 0L0 4L-4 0z",
    "v": "M0 3.6L3.6-3h-7.2z",
    "P": "M-1.3-3.6h2.6v2.3h2.3v2.6h-2.3v2.3h-2.6v-2.3h-2.3v-2.6h2.3z",
    "X": "M-3.6-1.8L-1.8-3.6L0-1.8L1.8-3.6L3.6-1.8L1.8 0L3.6 1.8L1.8 3.6L0 1.8L-1.8 3.6L-3.6 1.8L-1.8 0z",
    "*": "M0-4.4L1.2-1.4L4.3-1.3L1.8 .6L2.6 3.6L0 1.9L-2.6 3.6L-1.8 .6L-4.3-1.3L-1.2-1.4z",
}

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One trial's figures in one drawing. ``style`` numbers the variant; ``faint`` marks the trials beside the main."""

    style: int
    t_s: Sequence[float]
    values: Values
    faint: bool = False
    offered: bool = False


@dataclass(frozen=True)
class Drawing:
    """What one figure shows. ``window_s`` ends the measured time; what lies outside of 0 to there is shaded.

    ``unit``: seconds, ratio or plain. ``marks`` are times in seconds where the event changes its course, ``faults`` the
    begins and ends of planned faults; ``limits`` are SLOs in the figure's own unit.
    """

    key: str
    label: str
    unit: str
    lines: tuple[Line, ...]
    window_s: float
    span_s: tuple[float, float]
    marks: tuple[float, ...] = ()
    limits: tuple[float, ...] = ()
    faults: tuple[tuple[float, float], ...] = ()


def swatch(style: int) -> str:
    """Return the legend's sample of a variant's line: a small SVG, safe to include as it is."""
    dashes = " ".join(f"{d * 2:g}" for d in _DASHES[style // _SERIES % len(_DASHES)])
    colour = f"var(--s{style % _SERIES + 1})"
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        '<svg class="swatch" viewBox="-16 -6 32 12" width="32" height="12" aria-hidden="true">'
        f'<path d="M-16 0H16" style="stroke:{colour};stroke-width:2"{dash}/>'
        f'<path d="{_MARKER_PATHS[_MARKERS[style % len(_MARKERS)]]}" style="fill:{colour}"/></svg>'
    )


def thin(t_s: Sequence[float], values: Values, limit: int = MAX_POINTS) -> tuple[list[float], list[float | None]]:
    """Return at most about ``limit`` points that keep each stretch's lowest and highest value, and its first gap.

    A peak of one second is therefore still drawn, and a gap stays a gap, whatever the length of the trial.
    """
    if len(t_s) <= limit:
        return list(t_s), list(values)
    stretches = max(1, limit // 3)
    keep: set[int] = set()
    for n in range(stretches):
        part = range(n * len(t_s) // stretches, (n + 1) * len(t_s) // stretches)
        known = [(v, i) for i in part if (v := values[i]) is not None]
        if known:
            keep.update((min(known)[1], max(known)[1]))
        keep.update([i for i in part if values[i] is None][:1])
    order = sorted(keep)
    return [t_s[i] for i in order], [values[i] for i in order]


def has_values(drawing: Drawing) -> bool:
    """Whether anything at all was measured for this figure."""
    return any(value is not None for line in drawing.lines if not line.offered for value in line.values)


def draw(drawing: Drawing) -> str:
    """Return the figure as an SVG element for a page: no ids but its own, no colours but the page's, no size."""
    import matplotlib as mpl  # heavy
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {  # matplotlib types the keys as a literal of all of them
        "svg.fonttype": "none",
        "svg.hashsalt": drawing.key,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "path.simplify": True,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=SIZE_INCHES)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.118, 0.145, 0.862, 0.82))
        _frame(axes, drawing)
        _plot(axes, drawing)
        out = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return _inline(out.getvalue().decode(), drawing.key)


def _plot(axes: "Axes", drawing: Drawing) -> None:
    positive_only = axes.get_yscale() == "log"
    # The reference is drawn last, so that it lies on top.
    for line in sorted(drawing.lines, key=lambda line: (not line.faint, -line.style)):
        t_s, values = thin(line.t_s, line.values)
        y = [math.nan if v is None or (positive_only and v <= 0) else v for v in values]
        if line.offered:
            axes.plot(t_s, y, color=_OFFERED, linewidth=1.3, dashes=(3, 2), zorder=2)
            continue
        colour = f"#0100{line.style % _SERIES:02x}"
        axes.plot(
            t_s,
            y,
            color=colour,
            linewidth=0.8 if line.faint else 1.7,
            alpha=0.45 if line.faint else 1,
            zorder=2.5 if line.faint else 3,
            dashes=_DASHES[line.style // _SERIES % len(_DASHES)] or (None, None),
            marker=None if line.faint else _MARKERS[line.style % len(_MARKERS)],
            markevery=_marked(y, line.style),
            markersize=4.6,
            solid_joinstyle="round",
        )


def _marked(y: Sequence[float], style: int) -> list[int]:
    """Return where markers go: some eight a line, shifted per variant so none hides another, and each lone point."""
    step = max(1, len(y) // 8)
    regular = set(range((style * step // 5) % step, len(y), step))
    alone = {
        i
        for i, value in enumerate(y)
        if not math.isnan(value) and (i == 0 or math.isnan(y[i - 1])) and (i == len(y) - 1 or math.isnan(y[i + 1]))
    }
    return sorted(i for i in regular | alone if not math.isnan(y[i]))


def _frame(axes: "Axes", drawing: Drawing) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    start, end = drawing.span_s
    axes.set_xlim(start, end)
    for low, high in ((start, min(0.0, end)), (drawing.window_s, end)):
        if high > low:
            axes.axvspan(low, high, color=_SHADE, linewidth=0, zorder=0)
    for low, high in drawing.faults:
        axes.axvspan(low, high, color=_FAULT, linewidth=0, zorder=0.2)
        axes.axvline(low, color=_FAULT_EDGE, linewidth=1.1, zorder=1.1)
        axes.axvline(high, color=_FAULT_EDGE, linewidth=0.7, zorder=1.1)
    for mark in drawing.marks:
        axes.axvline(mark, color=_PHASE, linewidth=0.9, dashes=(1, 2), zorder=1)
    for limit in drawing.limits:
        axes.axhline(limit, color=_SLO, linewidth=1.3, dashes=(6, 2), zorder=2.2)
    low, high = bounds(drawing)
    if drawing.unit == "seconds" and low > 0 and high / low > LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.4, high * 1.4)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        nothing = _EMPTY_RATIO if drawing.unit == "ratio" else 1.0
        # of a stock that is sold twice more than all is used: it must not leave the drawing
        axes.set_ylim(0, max(1.04, high * 1.04) if drawing.unit == "share" else high * 1.08 or nothing)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick(drawing.unit)))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 6, 10]))
    axes.grid(visible=True, which="major", axis="y", color=_GRID, linewidth=0.7, zorder=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_INK)
        spine.set_linewidth(0.7)
    axes.tick_params(colors=_INK, width=0.7, length=3, which="both")
    axes.tick_params(axis="y", length=0, which="both")
    axes.set_xlabel("seconds since the window began", color=_INK, fontsize=8.8, labelpad=2)


def bounds(drawing: Drawing) -> tuple[float, float]:
    """Return the smallest positive and the largest figure of a drawing, SLOs included; 0 where there is none."""
    known = [v for line in drawing.lines for v in line.values if v is not None and math.isfinite(v)]
    known += drawing.limits
    positive = [v for v in known if v > 0]
    return (min(positive, default=0.0), max(positive, default=0.0))


def _tick(unit: str) -> Callable[[float, Any], str]:
    def text(value: float, _: Any) -> str:
        if unit == "seconds":
            return "0" if value == 0 else f"{value * 1000:,.10g} ms" if value < 1 else f"{value:,.10g} s"
        return f"{value * 100:.10g} %" if unit in ("ratio", "share") else f"{value:,.10g}"

    return text


_ID: Final = re.compile(r'\bid="([^"]*)"')
_REFERENCE: Final = re.compile(r'(?:xlink:)?href="#([^"]*)"|url\(#([^)]*)\)')
_FONT: Final = re.compile(r"font-family: [^;\"]*;? ?")
_HEX: Final = re.compile(r"#[0-9a-f]{6}\b")
_PATH: Final = re.compile(r'\bd="([^"]*)"')
_DECIMALS: Final = re.compile(r"-?\d+\.\d+")


def _inline(svg: str, key: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    head_end = svg.index(">") + 1
    view = "0 0 {:g} {:g}".format(*(side * 72 for side in SIZE_INCHES))
    body = svg[head_end:]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    referenced = {a or b for a, b in _REFERENCE.findall(body)}
    # Ids that nothing points to would only collide between the figures of a page.
    body = _ID.sub(lambda m: f'id="{key}-{m[1]}"' if m[1] in referenced else "", body)
    body = _REFERENCE.sub(lambda m: f'href="#{key}-{m[1]}"' if m[1] else f"url(#{key}-{m[2]})", body)
    body = _FONT.sub("", body)
    body = _HEX.sub(lambda m: _VARIABLES.get(m[0], m[0]), body)
    body = _PATH.sub(lambda m: f'd="{_short(m[1])}"', body)
    body = re.sub(r">\s+<", "><", body)
    body = re.sub(r"<g +>", "<g>", body)
    return f'<svg class="plot" viewBox="{view}" aria-hidden="true" focusable="false">{body}'


@functools.lru_cache(maxsize=256)  # markers and ticks repeat
def _short(path: str) -> str:
    """Round a path: a tenth of a unit is an eighth of a pixel at most, so more decimals are only bytes."""
    path = _DECIMALS.sub(lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), path)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", path).strip()
