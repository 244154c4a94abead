"""``Plot``: a chart as SVG text. Colors are CSS classes, so a page can be dark or light.

All texts are escaped by ``Markup.format``.
"""

from collections.abc import Sequence

from markupsafe import Markup

from kd_lightning.reports.page.scales import Axis, short

NUM_COLORS = 10  # classes c0 to c9 in style.css
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 40  # room around the drawing, pixels
Point = tuple[float, float]


def color(number: int) -> str:
    """The CSS class of a color; after the last the first comes again."""
    return f"c{number % NUM_COLORS}"


class Plot:
    """A chart with two axes, to which marks are added.

    Args:
        x, y: the axes.
        width, height: of the whole picture, in pixels. A page may show it smaller.
        top: room above the drawing, in pixels.
    """

    def __init__(
        self, x: Axis, y: Axis, *, width: int = 350, height: int = 240, top: int = TOP
    ) -> None:
        self.x, self.y = x, y
        self.width, self.height, self.top = width, height, top
        self.marks: list[Markup] = []

    def at(self, x: float, y: float) -> Point:
        """The place of a value in the picture, in pixels from the left and the top."""
        across, down = self.width - LEFT - RIGHT, self.height - self.top - BOTTOM
        return LEFT + across * self.x.position(x), self.top + down * (1 - self.y.position(y))

    def line(
        self, points: Sequence[Point], style: str, title: str = "", *, key: str | None = None
    ) -> None:
        """Joins points.

        Args:
            style: CSS classes: a color, and "dashed" or "thin".
            title: shown under the pointer.
            key: what the legend calls it.
        """
        places = " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
        self.marks.append(
            Markup('<polyline class="line {}"{} points="{}"><title>{}</title></polyline>').format(
                style, _key(key), places, title
            )
        )

    def dot(
        self, point: Point, style: str, title: str, *, radius: float = 3.5, key: str | None = None
    ) -> None:
        x, y = self.at(*point)
        self.marks.append(
            Markup('<circle class="dot {}"{} cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
            .format(style, _key(key), f"{x:.1f}", f"{y:.1f}", f"{radius:.1f}", title)
        )  # fmt: skip

    def interval(
        self, x: float, low: float, high: float, style: str, key: str | None = None
    ) -> None:
        """A vertical bar from ``low`` to ``high``."""
        (left, bottom), (_, top) = self.at(x, low), self.at(x, high)
        self.marks.append(
            Markup('<line class="interval {}"{} x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                style, _key(key), f"{left:.1f}", f"{left:.1f}", f"{bottom:.1f}", f"{top:.1f}"
            )
        )

    def bar(
        self, left: float, right: float, height: float, style: str, title: str, *, key: str
    ) -> None:
        """A bar from the horizontal axis up to ``height``."""
        (x0, bottom), (x1, top) = self.at(left, self.y.low), self.at(right, height)
        sizes = (f"{x0:.1f}", f"{top:.1f}", f"{x1 - x0:.1f}", f"{bottom - top:.1f}")
        self.marks.append(
            Markup(
                '<rect class="bar {}"{} x="{}" y="{}" width="{}" height="{}">'
                "<title>{}</title></rect>"
            ).format(style, _key(key), *sizes, title)
        )

    def count(self, x: float, words: str) -> None:
        """A number above the drawing, turned so that many have room."""
        across, _ = self.at(x, self.y.low)
        self.marks.append(
            Markup('<text class="count" transform="translate({} {}) rotate(-90)">{}</text>').format(
                f"{across + 3:.1f}", self.top - 12, words
            )
        )

    def svg(self, label: str) -> Markup:
        """The picture.

        Args:
            label: what a screen reader says.
        """
        parts = [*self._horizontal_axis(), *self._vertical_axis(), *self.marks]
        return Markup(
            '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        ).format(self.width, self.height, label, Markup("").join(parts))

    def _horizontal_axis(self) -> list[Markup]:
        bottom, middle = self.height - BOTTOM, (LEFT + self.width - RIGHT) / 2
        parts = [_rule(LEFT, self.width - RIGHT, bottom, bottom, "axis")]
        for tick in self.x.ticks:
            x, _ = self.at(tick, self.y.low)
            parts.append(_label(x, bottom + 14, short(tick), "middle"))
            parts.append(_rule(x, x, bottom, bottom + 3, "axis"))
        return [*parts, _label(middle, self.height - 7, self.x.label, "middle", "title")]

    def _vertical_axis(self) -> list[Markup]:
        parts = []
        for tick in self.y.ticks:
            _, y = self.at(self.x.low, tick)
            parts.append(_rule(LEFT, self.width - RIGHT, y, y, "grid"))
            parts.append(_label(LEFT - 6, y + 3.5, short(tick), "end"))
        middle = (self.top + self.height - BOTTOM) / 2
        turned = Markup('<g transform="rotate(-90 11 {})">{}</g>').format(
            f"{middle:.1f}", _label(11, middle, self.y.label, "middle", "title")
        )
        return [*parts, turned]


def _key(key: str | None) -> Markup:
    return Markup("") if key is None else Markup(' data-key="{}"').format(key)


def _rule(x1: float, x2: float, y1: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        style, f"{x1:.1f}", f"{x2:.1f}", f"{y1:.1f}", f"{y2:.1f}"
    )


def _label(x: float, y: float, words: str, anchor: str, style: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, f"{x:.1f}", f"{y:.1f}", anchor, words
    )
