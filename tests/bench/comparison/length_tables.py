"""What a model does with length, in Markdown, from the results of recall.py and positions.py."""
import glob
import json
import os


def read(folder, kind):
    """The results files of a kind, in the order of their names."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "length", f"{kind}-*.json"))):
        with open(path) as file:
            found.append(json.load(file))
    return found


def percent(part, whole):
    return f"{100 * part / whole:.1f} %"


def recall_table(content):
    phases = content["phases"]
    chance = 100 / content["values"]
    yield (f"{content['where']}, commit {content['commit']}: hidden size {content['hidden_size']}, two layers, one head; {content['keys']} keys, "
           f"{content['values']} values (chance: {chance:.1f} %).\n")
    yield "| tokens back | plan | steps | sequences a step | right | right without the state | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for phase in phases:
        yield (f"| {phase['distance']:,} | {phase['plan']} | {phase['steps']} | {phase['batch']} | {percent(phase['right'], phase['asked'])} | "
               f"{percent(phase['right_when_cut'], phase['asked'])} | {phase['seconds']:.0f} |")
    yield ""


def positions_table(content):
    phases = content["phases"]
    yield (f"{content['where']}, commit {content['commit']}: {phases[-1]['tested']} held-out sequences of {phases[-1]['tested_length']:,} bytes of C; "
           "each model goes on from the one before it:\n")
    yield "| positions | " + " | ".join(f"trained on {phase['trained_length']:,} ({phase['tokens'] / 1e6:.1f}M tokens, {phase['plan']})"
                                       for phase in phases) + " |"
    yield "|---" * (1 + len(phases)) + "|"
    for rows in zip(*(phase["buckets"] for phase in phases)):
        yield f"| {rows[0]['begin']:,} to {rows[0]['end'] - 1:,} | {' | '.join(f'''{row['loss']:.4f}''' for row in rows)} |"
    yield ""


def document(folder):
    yield "# What a model does with length\n"
    yield "Made by `tests/bench/paper recall` and `tests/bench/paper positions` from the files in `length/`.\n"
    recalls, texts = read(folder, "recall"), read(folder, "positions")
    if recalls:
        yield "## Recall\n"
        yield ("A sequence tells a value for each key, over and over in 1,024 tokens, or before long distances in a quarter as many tokens as "
               "follow; goes on with so many that say nothing; and asks for each key once, so that all was told at least as far back as the row "
               "says. Each row's model is trained on sequences of that length, from the weights of the "
               "row before. Without the state: the same questions to the same model, behind a state of zeros.\n")
        for content in recalls:
            yield from recall_table(content)
    if texts:
        yield "## Loss by position\n"
        for content in texts:
            yield from positions_table(content)


def documents(folder):
    """{path: text}; nothing without results."""
    if not read(folder, "recall") and not read(folder, "positions"):
        return {}
    return {os.path.join(folder, "length.md"): "\n".join(document(folder)).rstrip() + "\n"}
