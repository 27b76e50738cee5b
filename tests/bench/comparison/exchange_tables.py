"""What was sent and what it costs, in Markdown and SVG, from the results of exchange.py."""
import math
import os
import statistics

from comparison import cost_model, exchange
from comparison.plots import COLOURS, HEIGHT, LEFT, TEXT, TOP, WIDTH

LARGE = (64, 256, 1024)
# What the plot and the extrapolation show.
LINK, HEADS = (10, 5), 8
# A step that is extrapolated: layers, and the ms that each computes beside its exchange.
STEP_LAYERS, STEP_COMPUTE_MS = 16, 20


def sent_text(case, length):
    """A rank's bytes a layer and step: the mean over ranks."""
    of = len(case["ranks"]) * length
    formula, counted, beside, kernel = (sum(rank[name] for rank in case["ranks"]) / of
                                        for name in ("formula", "counted", "beside", "by_kernel"))
    return f"{formula:,.0f} | {counted:,.0f} | {kernel - beside:,.0f} | {100 * ((kernel - beside) / counted - 1):.2f} %"


def traffic_table(content):
    yield "| method | layer | tokens | formula | communicator | TCP | headers |"
    yield "|---|---|---|---|---|---|---|"
    for case in content["cases"]:
        kind = "whole block" if case["method"] == "MEGATRON_SP" else "LRPE, d_k doubled" if case["lrpe"] else "plain"
        yield f"| {case['method']} | {kind} | {case['tokens']:,} | {sent_text(case, content['layers'])} |"
    yield ""


def fits(runs):
    small = [one for one in runs if one["ranks"] in exchange.FITTED]
    return {method: cost_model.fit(method, small, lambda one, method=method: exchange.exchange_of(method, one))
            for method in cost_model.METHODS}


def errors(method, fit, runs):
    """Of single exchanges and of steps: how far predictions are off, as shares of what was measured."""
    single, steps = [], []
    for one in runs:
        link = fit.link(one)
        at = (method, one["ranks"], one["state_bytes"], one["scan_blocks"], link)
        single.append(cost_model.exchange_ms(*at) / exchange.exchange_of(method, one) - 1)
        steps.append(cost_model.step_ms(*at, one["layers"], one["compute_ms"]) / exchange.step_of(method, one) - 1)
    return single, steps


def share(values):
    """The median and the largest, without signs."""
    return f"{100 * statistics.median(map(abs, values)):.1f} %, at most {100 * max(map(abs, values)):.1f} %"


def fit_table(runs, found):
    """How well the small groups' fit tells the large ones' times."""
    larger = [one for one in runs if one["ranks"] not in exchange.FITTED]
    yield "| method | latency × | time a byte × | software a message | error, fitted | error, larger groups | error of a step, all groups |"
    yield "|---|---|---|---|---|---|---|"
    for method, fit in found.items():
        own, _ = errors(method, fit, [one for one in runs if one["ranks"] in exchange.FITTED])
        single, _ = errors(method, fit, larger)
        _, steps = errors(method, fit, runs)
        yield (f"| {method} | {fit.latency:.3f} | {fit.size:.3f} | {fit.software_ms:.2f} ms | {share(own)} | {share(single)} | "
               f"{share(steps)} |")
    yield ""


def shown(runs):
    """The runs of one link and state, by the number of ranks."""
    return sorted((one for one in runs if (one["latency_ms"], one["megabytes_per_second"]) == LINK and
                   one["state_bytes"] == HEADS * 16384), key=lambda one: one["ranks"])


def measured_table(runs, found):
    yield f"| ranks | {' | '.join(found)} | a step with {' | a step with '.join(found)} |"
    yield "|---" * (1 + 2 * len(found)) + "|"
    for one in shown(runs):
        row = []
        for method, fit in found.items():
            at = (method, one["ranks"], one["state_bytes"], one["scan_blocks"], fit.link(one))
            row.append((f"{exchange.exchange_of(method, one):.0f} ({cost_model.exchange_ms(*at):.0f})",
                        f"{exchange.step_of(method, one):.0f} ({cost_model.step_ms(*at, one['layers'], one['compute_ms']):.0f})"))
        yield f"| {one['ranks']} | {' | '.join(single for single, _ in row)} | {' | '.join(step for _, step in row)} |"
    yield ""


def extrapolated_table(runs, found):
    one = shown(runs)[0]
    larger = [each for each in runs if each["ranks"] not in exchange.FITTED]
    worst = {method: max(map(abs, errors(method, fit, larger)[0])) for method, fit in found.items()}
    worst_step = {method: max(map(abs, errors(method, fit, runs)[1])) for method, fit in found.items()}
    yield f"| ranks | {' | '.join(found)} | a step with {' | a step with '.join(found)} |"
    yield "|---" * (1 + 2 * len(found)) + "|"
    for ranks in LARGE:
        single, steps = [], []
        for method, fit in found.items():
            at = (method, ranks, one["state_bytes"], one["scan_blocks"], fit.link(one))
            time = cost_model.exchange_ms(*at)
            error = max(worst[method], fit.error(cost_model.features(method, one, ranks), time))
            single.append(f"{time:,.0f} ± {error * time:,.0f}")
            step = cost_model.step_ms(*at, STEP_LAYERS, STEP_COMPUTE_MS)
            steps.append(f"{step:,.0f} ± {max(error, worst_step[method]) * step:,.0f}")
        yield f"| {ranks:,} | {' | '.join(single)} | {' | '.join(steps)} |"
    yield ""


def ratio(one):
    """Of the time a state takes to leave to the latency: what decides how methods compare."""
    return one["state_bytes"] / (one["megabytes_per_second"] * 1e3) / one["latency_ms"]


def document(folder):
    traffic = exchange.read(os.path.join(folder, "exchange", "traffic.json"))
    cost = exchange.read(os.path.join(folder, "exchange", "cost.json"))
    yield "# The exchange of states: what it sends, and what it costs\n"
    yield "Made by `tests/bench/paper exchange` from the files in `exchange/`: ranks are processes of one host with CPUs.\n"
    yield "## What a rank sends\n"
    yield (f"Bytes of a rank, layer and step (forward and backward, the mean over {traffic['ranks']} ranks), {traffic['heads']} heads of "
           f"{traffic['head_size']} in fp32, by the method's formula, as its communicator counts, and as the kernel has counted on the "
           f"rank's TCP sockets (TCP_INFO). What TCP has more is the 48 bytes that precede each message and each word that one is "
           f"expected. Commit {traffic['commit']}.\n")
    yield from traffic_table(traffic)
    runs = list(cost["runs"].values())
    found = fits(runs)
    one = shown(runs)[0]
    yield "## What it costs\n"
    yield ("All messages go through relays that hold them back: every rank sends at a given bandwidth, and what it has sent is there "
           "a latency later. Links of " + ", ".join(f"{latency} ms and {size} MB/s" for latency, size in exchange.LINKS) +
           f", states of 32 and 128 KiB, ALL_SCAN in {one['scan_blocks']} blocks (2 where there are but two heads). The model "
           "(`comparison/cost_model.py`) counts latencies, bytes and messages that follow one another; by least squares over groups of "
           f"{', '.join(map(str, exchange.FITTED[:-1]))} and {exchange.FITTED[-1]} ranks each gets a factor. A step's time follows from the same figures: a rank "
           f"goes on as soon as its own state is there, so LASP's hops are waited for once a pass and not once a layer. Commit {cost['commit']}.\n")
    yield from fit_table(runs, found)
    yield (f"{LINK[0]} ms and {LINK[1]} MB/s, states of {one['state_bytes'] // 1024} KiB: ms of one exchange, and of a step of {one['layers']} layers "
           f"with {one['compute_ms']} ms of computation in each direction; what the model says in parentheses:\n")
    yield from measured_table(runs, found)
    yield (f"On the same link, extrapolated, with the larger of two standard errors and the worst error above; the step has {STEP_LAYERS} layers. "
           f"A state takes {ratio(one):.1f} times the latency to leave, as 1 MiB (16 heads of 128) does over 400 Gb/s with {(1 << 20) / 50e9 / ratio(one) * 1e6:.0f} µs: "
           "there divide all by the ratio of the latencies.\n")
    yield from extrapolated_table(runs, found)
    yield "![Exchange by ranks](exchange-cost.svg)\n"


def plot(runs, found):
    one = shown(runs)[0]
    ranks = sorted({each["ranks"] for each in shown(runs)} | {32, *LARGE, 128, 512})

    def modelled(method, count):
        return cost_model.exchange_ms(method, count, one["state_bytes"], one["scan_blocks"], found[method].link(one))

    least, most = 10, max(modelled(method, ranks[-1]) for method in found) * 1.3

    def x(count):
        return LEFT + WIDTH * math.log2(count / ranks[0]) / math.log2(ranks[-1] / ranks[0])

    def y(time):
        return TOP + HEIGHT * (1 - math.log(time / least) / math.log(most / least))

    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 140}" height="{TOP + HEIGHT + 40}" role="img">'
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    yield (f'<text x="10" y="20" {TEXT} font-weight="600">One exchange of states by ranks: measured (dots) and modelled; '
           f'{LINK[0]} ms, {LINK[1]} MB/s, {one["state_bytes"] // 1024} KiB</text>')
    for tick in (10, 100, 1000, 10000):
        if tick < most:
            yield f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{LEFT + WIDTH}" y2="{y(tick):.1f}" stroke="#d0d7de"/>'
            yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" {TEXT} text-anchor="end">{tick:,} ms</text>'
    for count in (2, 4, 8, 16, *LARGE):
        yield f'<text x="{x(count):.1f}" y="{TOP + HEIGHT + 20}" {TEXT} text-anchor="middle">{count}</text>'
    for i, method in enumerate(found):
        line = " ".join(f"{x(count):.1f},{y(modelled(method, count)):.1f}" for count in ranks)
        yield f'<polyline points="{line}" fill="none" stroke="{COLOURS[method]}" stroke-width="1.5" stroke-dasharray="5 3"/>'
        for each in shown(runs):
            yield f'<circle cx="{x(each["ranks"]):.1f}" cy="{y(exchange.exchange_of(method, each)):.1f}" r="3" fill="{COLOURS[method]}"/>'
        yield f'<rect x="{LEFT + WIDTH + 12}" y="{TOP + 20 * i}" width="10" height="10" fill="{COLOURS[method]}"/>'
        yield f'<text x="{LEFT + WIDTH + 27}" y="{TOP + 20 * i + 9}" {TEXT}>{method}</text>'
    yield "</svg>"


def documents(folder):
    """{path: text}; nothing before every cell has a result."""
    cost = exchange.read(os.path.join(folder, "exchange", "cost.json"))
    if cost is None or any(exchange.key(*cell) not in cost["runs"] for cell in exchange.cells()):
        return {}
    runs = list(cost["runs"].values())
    return {os.path.join(folder, "exchange.md"): "\n".join(document(folder)).rstrip() + "\n",
            os.path.join(folder, "exchange-cost.svg"): "\n".join(plot(runs, fits(runs))) + "\n"}
