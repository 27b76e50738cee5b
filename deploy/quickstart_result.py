"""Sums up one quick start run: prints the JSON object that deploy/quickstart ends with.

The order-1 entropy is what the best model that sees only the byte before could reach on the corpus:
a last loss below it shows that the model uses more of the context.
"""
import argparse
import collections
import json
import math
import statistics
import sys
import urllib.request


def order1_entropy(data):
    """H(byte | byte before) of `data`, in nats a byte."""
    pairs = collections.Counter(zip(data, data[1:]))
    firsts = collections.Counter(data[:-1])
    return -sum(n * math.log(n / firsts[a]) for (a, _), n in pairs.items()) / (len(data) - 1)


def targets_up(prometheus):
    """How many of Prometheus' targets answer, and how many there are."""
    with urllib.request.urlopen(prometheus + "/api/v1/query?query=up", timeout=5) as answer:
        values = [row["value"][1] for row in json.load(answer)["data"]["result"]]
    return values.count("1"), len(values)


def main():
    parser = argparse.ArgumentParser()
    for name in ("corpus", "job", "metrics", "prometheus"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    with open(arguments.corpus, "rb") as file:
        entropy = order1_entropy(file.read())
    with open(arguments.job) as file:
        job = json.load(file)
    with open(arguments.metrics) as file:
        steps = json.load(file)
    result = {
        "job": job["name"].rsplit("/", 1)[-1],
        "state": job["state"],
        "first_loss": round(steps[0]["loss"], 4),
        "last_loss": round(steps[-1]["loss"], 4),
        "order1_entropy": round(entropy, 4),
        "tokens_per_second": round(statistics.median(s["tokens_per_second"] for s in steps)),
    }
    up, all_targets = targets_up(arguments.prometheus)
    print(f"quickstart: {steps[-1]['step']} steps; Prometheus scrapes {up} of {all_targets} targets; "
          f"last loss {result['last_loss']} against an order-1 entropy of {result['order1_entropy']} nats a byte",
          file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
