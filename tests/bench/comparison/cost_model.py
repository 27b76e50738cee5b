"""What an exchange of states costs, by method and number of ranks, from three figures of a link: its latency, the time of
a byte, and what software adds to each message.

A message needs its receiver's word that it is expected, which goes the other way. Where the receive was issued in time
that costs nothing; a ring's first hop waits for it, and so does each block of ALL_SCAN, whose receive is issued when the
block before it has come.
"""
import dataclasses
import math

METHODS = ("LASP", "LASP2", "ALL_SCAN")


@dataclasses.dataclass(frozen=True)
class Link:
    latency_ms: float
    bytes_per_ms: float
    # Of each message that waits for another.
    software_ms: float = 0.0


def terms(method, ranks, state_bytes, blocks):
    """(latencies, bytes, messages) that follow one another until the last rank has its state."""
    if method == "LASP2":
        return 2, (ranks - 1) * state_bytes, ranks - 1
    if method == "LASP":
        blocks = 1
    return (ranks + 2 * (blocks - 1), (ranks + blocks - 2) * state_bytes / blocks, ranks + blocks - 2)


def exchange_ms(method, ranks, state_bytes, blocks, link):
    latencies, size, messages = terms(method, ranks, state_bytes, blocks)
    return latencies * link.latency_ms + size / link.bytes_per_ms + messages * link.software_ms


def pass_ms(method, ranks, state_bytes, blocks, link, layers, compute_ms, begins):
    """When each rank, in the order of the flow, has ended a pass over the layers, each of which computes beside its
    exchange; `begins` says when it began."""
    if method == "LASP2":
        # Nobody goes on before all have come.
        one = max(compute_ms, exchange_ms(method, ranks, state_bytes, blocks, link))
        return [max(begins) + layers * one] * ranks
    if method == "LASP":
        blocks = 1
    takes = state_bytes / blocks / link.bytes_per_ms + link.software_ms
    ends = []
    # Of the rank before: when it issues each block's send, by layer.
    sends = None
    for rank in range(ranks):
        now = idle = begins[rank]
        own, received_at = [], []
        wire_free = 0.0
        for layer in range(layers):
            idle = max(idle, now)
            turns, last = [], now
            for block in range(blocks + 1):
                # One turn of the communication: this block comes, the one before it goes.
                begin = idle
                if block > 0:
                    turns.append(begin)
                if block < blocks and sends is not None:
                    leaves = max(sends[layer][block], begin + link.latency_ms, wire_free)
                    wire_free = leaves + takes
                    last = idle = wire_free + link.latency_ms
            own.append(turns)
            received_at.append(last)
            now = max(now + compute_ms, last)
        ends.append(now)
        sends = own
    return ends


def step_ms(method, ranks, state_bytes, blocks, link, layers, compute_ms):
    """Forward, and backward from the last rank to the first."""
    forward = pass_ms(method, ranks, state_bytes, blocks, link, layers, compute_ms, [0.0] * ranks)
    return max(pass_ms(method, ranks, state_bytes, blocks, link, layers, compute_ms, forward[::-1]))


def solve(matrix, values):
    """Of a small regular system; also the matrix's inverse."""
    size = len(matrix)
    rows = [list(map(float, row)) + [float(i == j) for j in range(size)] + [float(value)]
            for i, (row, value) in enumerate(zip(matrix, values))]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for row in range(size):
            if row != column:
                factor = rows[row][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column])]
    return [row[-1] for row in rows], [row[size:-1] for row in rows]


@dataclasses.dataclass(frozen=True)
class Fit:
    """By how much a link's latency and time a byte are to be multiplied, and a message's software, in ms."""
    latency: float
    size: float
    software_ms: float
    covariance: tuple

    def link(self, run):
        return Link(self.latency * run["latency_ms"], run["megabytes_per_second"] * 1e3 / self.size, self.software_ms)

    def error(self, features, predicted):
        """Two standard errors of a prediction, as a share of it."""
        variance = sum(a * b * c for a, row in zip(features, self.covariance) for b, c in zip(features, row))
        return 2 * math.sqrt(max(0.0, variance)) / predicted


def features(method, run, ranks=None):
    latencies, size, messages = terms(method, ranks or run["ranks"], run["state_bytes"], run["scan_blocks"])
    return (latencies * run["latency_ms"], size / (run["megabytes_per_second"] * 1e3), messages)


def fit(method, runs, measured):
    """By least squares of relative errors; `measured` says what a run measured."""
    rows = []
    for run in runs:
        time = measured(run)
        rows.append([value / time for value in features(method, run)])
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(3)] for i in range(3)]
    weights, inverse = solve(normal, [sum(row[i] for row in rows) for i in range(3)])
    left = sum((1 - sum(w * value for w, value in zip(weights, row))) ** 2 for row in rows)
    variance = left / max(1, len(rows) - 3)
    return Fit(*weights, tuple(tuple(variance * value for value in row) for row in inverse))
