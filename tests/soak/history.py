"""What a watcher saw of a job against the job's transitions in the store.

A watch gives each job's newest state: states that follow one another faster than it is read come as one. So a state
that held for longer than `GRACE` while the watcher was connected must have been seen, all that was seen must have been
so and in this order, and the last state must have been seen in any case."""
from collections import namedtuple

# A state and when it began, in seconds since the epoch: of the history, or when it was seen.
Moment = namedtuple("Moment", "time state generation")
# Seconds. Under load the commit of a transition, its encoding and its reading may all wait for a core.
GRACE = 3.0


class Verdict:
    def __init__(self):
        self.problems = []
        self.seen = 0        # states seen
        self.passed_by = 0   # states that were too short, or held while the watcher was away
        self.delays = []     # seconds from a transition to its being seen

    def add(self, other):
        self.problems += other.problems
        self.seen += other.seen
        self.passed_by += other.passed_by
        self.delays += other.delays


def _connected(begin, end, intervals):
    """Whether one interval holds all of it."""
    return any(since <= begin and end <= until for since, until in intervals)


def judge(who, history, seen, intervals):
    """`history`, `seen`: lists of Moment, oldest first. `intervals`: when `who` was connected, pairs of times."""
    verdict = Verdict()
    at = 0
    matched = set()
    for moment in seen:
        same = [i for i in range(at, len(history)) if history[i][1:] == moment[1:]]
        if not same:
            verdict.problems.append(f"{who}: {moment.state} of generation {moment.generation} was not, or not then; "
                                    f"history {history}, seen {seen}")
            return verdict
        at = same[0] + 1
        matched.add(same[0])
        verdict.seen += 1
        if _connected(history[same[0]].time, moment.time, intervals):
            verdict.delays.append(moment.time - history[same[0]].time)
    for i, moment in enumerate(history):
        if i in matched:
            continue
        last = i + 1 == len(history)
        end = moment.time + GRACE if last else history[i + 1].time
        if last or (end - moment.time >= GRACE and _connected(moment.time, end, intervals)):
            verdict.problems.append(f"{who}: did not see {moment.state} of generation {moment.generation}, which held for "
                                    f"{'good' if last else f'{end - moment.time:.1f} s'}; seen {seen}")
        else:
            verdict.passed_by += 1
    return verdict
