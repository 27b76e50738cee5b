"""Whether what was measured over time is flat: a straight line through it, after a warm-up, may rise by so much and no
more. Run on the record of a soak it prints the lines: flatness.py FOLDER."""
import csv
import json
import os
import sys

# Of the time measured: caches, pools of threads and retention fill up first.
WARM_UP = 0.2


class Line:
    """The least-squares line through (time, value) after the warm-up; `rise` is over all of that time."""

    def __init__(self, points):
        begin = points[0][0] + WARM_UP * (points[-1][0] - points[0][0])
        points = [(time, value) for time, value in points if time >= begin]
        self.first, self.last = points[0], points[-1]
        mean_time = sum(time for time, _ in points) / len(points)
        self.mean = sum(value for _, value in points) / len(points)
        spread = sum((time - mean_time) ** 2 for time, _ in points)
        slope = sum((time - mean_time) * (value - self.mean) for time, value in points) / spread if spread else 0.0
        self.seconds = points[-1][0] - points[0][0]
        self.rise = slope * self.seconds


class Allowed:
    """How much a series may rise: a constant, a part of its mean, and so many bytes for each `counted` thing, which is
    kept by intent and is no leak."""

    def __init__(self, constant, part=0.0, each=0.0, counted=None):
        self.constant, self.part, self.each, self.counted = constant, part, each, counted

    def of(self, line, counts):
        """`counts`: the series of what is counted."""
        kept = Line(counts[self.counted]).rise * self.each if self.counted else 0.0
        return self.constant + self.part * line.mean + kept


def read_series(folder):
    """{name: [(seconds, value)]} of a record's resources.csv."""
    series = {}
    with open(os.path.join(folder, "resources.csv")) as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name != "seconds" and value:
                    series.setdefault(name, []).append((float(row["seconds"]), float(value)))
    return series


def judge(series, bounds):
    """({name: figures}, [what is not flat]) of the series that have a bound."""
    figures, problems = {}, []
    for name, bound in bounds.items():
        line = Line(series[name])
        allowed = bound.of(line, series)
        figures[name] = {"mean": round(line.mean, 1), "rise": round(line.rise, 1), "allowed": round(allowed, 1),
                         "seconds": round(line.seconds)}
        if line.rise > allowed:
            problems.append(f"{name} rose by {line.rise:.0f} in {line.seconds:.0f} s, {allowed:.0f} are allowed; "
                            f"its mean is {line.mean:.0f}")
    return figures, problems


if __name__ == "__main__":
    from bounds import BOUNDS
    print(json.dumps(judge(read_series(sys.argv[1]), BOUNDS), indent=1))
