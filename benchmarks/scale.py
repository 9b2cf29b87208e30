"""How the time of a fleet grows with its members: ``python -m benchmarks.scale`` draws docs/fleet_scale.svg."""

from __future__ import annotations

import math
import os
import statistics
import sys
from pathlib import Path

import epochd
from benchmarks import fleets
from benchmarks.fleets import LINEAR
from benchmarks.harness import ONE_THREAD, server, timed

MEMBERS = (100, 1_000, 10_000, 100_000)
LOOP_SAMPLE = 50
PICTURE = Path(__file__).parent.parent / "docs" / "fleet_scale.svg"

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 400, 70, 350, 40
LOWEST, HIGHEST = -2, 4  # powers of ten of the seconds shown


def measure() -> tuple[list[float], float]:
    """Median seconds from a DataFrame to the result for each size, and seconds that a plain loop takes a model."""
    with server(workers=2) as address, epochd.connect(address, timeout=600) as client:
        fleets.train(client, LINEAR, fleets.table(LINEAR, 200, seed=99))
        seconds = []
        for members in MEMBERS:
            frames = [fleets.table(LINEAR, members, seed=seed) for seed in range(3)]
            times = [timed(lambda frame=frame: fleets.train(client, LINEAR, frame)) for frame in frames]
            seconds.append(statistics.median(times))
            print(f"{members:>9,} members  {seconds[-1]:.3f} s", file=sys.stderr)
    frame = fleets.table(LINEAR, LOOP_SAMPLE, seed=0)
    loop = statistics.median(timed(lambda: fleets.plain_loop(LINEAR, frame, LOOP_SAMPLE)) for _ in range(3))
    return seconds, loop / LOOP_SAMPLE


def draw(seconds: list[float], loop_seconds: float) -> str:
    """The picture: both axes logarithmic, ours as measured, the plain loop's time scaled from one model's."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">Linear models, 32 rows × 8 features, 200 epochs: '
        "seconds from DataFrame to result</text>",
    ]
    for power in range(LOWEST, HIGHEST + 1):
        y = _y(10.0**power)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
    parts += [
        f'<text x="{_x(members):.1f}" y="{BOTTOM + 22}" text-anchor="middle">{members:,} members</text>'
        for members in MEMBERS
    ]
    parts += _line(
        [loop_seconds * members for members in MEMBERS], "#b5541c", "plain PyTorch loop (scaled)", -12
    )
    parts += _line(seconds, "#1c5fb5", "epochd, two workers", 26)
    return "\n".join([*parts, "</svg>", ""])


def _x(members: float) -> float:
    span = math.log10(MEMBERS[-1] / MEMBERS[0])
    return LEFT + 50 + (WIDTH - LEFT - 130) * math.log10(members / MEMBERS[0]) / span


def _y(seconds: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * (math.log10(seconds) - LOWEST) / (HIGHEST - LOWEST)


def _line(seconds: list[float], colour: str, name: str, above: float) -> list[str]:
    points = [(_x(members), _y(value)) for members, value in zip(MEMBERS, seconds, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>']
    for (x, y), value in zip(points, seconds, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        label = f"{value:,.0f} s" if value >= 10 else f"{value:.2g} s"
        parts.append(
            f'<text x="{x:.1f}" y="{y + (above if above < 0 else 20):.1f}" text-anchor="middle" fill="{colour}">'
            f"{label}</text>"
        )
    middle = points[1]
    parts.append(
        f'<text x="{middle[0] + 30:.1f}" y="{middle[1] + 26:.1f}" fill="{colour}" font-weight="bold">{name}</text>'
    )
    return parts


if __name__ == "__main__":
    os.environ.update(ONE_THREAD)
    PICTURE.write_text(draw(*measure()), encoding="utf-8")
