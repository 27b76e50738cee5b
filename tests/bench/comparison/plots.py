"""Tokens a second by length, a line a method, as SVG."""
import math

from comparison import grid

COLOURS = dict(zip(grid.SP_METHODS, ("#1f6feb", "#2da44e", "#8250df", "#d29922", "#cf222e", "#57606a")))
LEFT, TOP, WIDTH, HEIGHT = 70, 50, 520, 260
TEXT = 'font-family="system-ui, sans-serif" font-size="12"'


def speed_plot(cells, gpus):
    lengths = sorted({cell["tokens"] for cell in cells})
    most = max(cell["tokens_per_second_per_gpu"] for cell in cells) * 1.05

    def x(tokens):
        return LEFT + WIDTH * math.log2(tokens / lengths[0]) / max(1, math.log2(lengths[-1] / lengths[0]))

    def y(speed):
        return TOP + HEIGHT * (1 - speed / most)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 140}" height="{TOP + HEIGHT + 40}" role="img">'
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    yield f'<text x="10" y="20" {TEXT} font-weight="600">TransNormerLLM-1B, tokens a second on each of {gpus} GPUs, by length of the sequence</text>'
    for tick in range(0, int(most) + 1, 20_000):
        yield f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{LEFT + WIDTH}" y2="{y(tick):.1f}" stroke="#d0d7de"/>'
        yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" {TEXT} text-anchor="end">{tick // 1000}k</text>'
    for tokens in lengths:
        yield f'<text x="{x(tokens):.1f}" y="{TOP + HEIGHT + 20}" {TEXT} text-anchor="middle">{tokens // grid.K}K</text>'
    methods = [method for method in grid.SP_METHODS if any(cell["sp_method"] == method for cell in cells)]
    for i, method in enumerate(methods):
        points = sorted((cell["tokens"], cell["tokens_per_second_per_gpu"]) for cell in cells if cell["sp_method"] == method)
        line = " ".join(f"{x(tokens):.1f},{y(speed):.1f}" for tokens, speed in points)
        yield f'<polyline points="{line}" fill="none" stroke="{COLOURS[method]}" stroke-width="2"/>'
        for tokens, speed in points:
            yield f'<circle cx="{x(tokens):.1f}" cy="{y(speed):.1f}" r="3" fill="{COLOURS[method]}"/>'
        yield f'<rect x="{LEFT + WIDTH + 12}" y="{TOP + 20 * i}" width="10" height="10" fill="{COLOURS[method]}"/>'
        yield f'<text x="{LEFT + WIDTH + 27}" y="{TOP + 20 * i + 9}" {TEXT}>{method}</text>'
    yield "</svg>"
