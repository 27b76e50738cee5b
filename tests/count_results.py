"""Counts test results: prints "PASSED FAILED SKIPPED" for the folder of one ctest run.

The folder holds ctest.junit and, for each gtest program, its own XML: where a program wrote one its
cases are counted, otherwise the ctest entry counts as one test.
"""
import os
import re
import sys
import xml.etree.ElementTree as xml


def cases_of_program(path):
    """(passed, failed, skipped) cases in a gtest XML, None where it is not whole."""
    try:
        cases = list(xml.parse(path).getroot().iter("testcase"))
    except (OSError, xml.ParseError):
        return None
    cases = [case for case in cases if case.get("status") == "run"]
    failed = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.get("result") == "skipped" for case in cases)
    return len(cases) - failed - skipped, failed, skipped


def cases_of_unittest(output):
    """(passed, failed, skipped) from the summary that Python's unittest prints, None without one."""
    ran = re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE)
    if not ran:
        return None
    numbers = {key: int(n) for key, n in re.findall(r"(failures|errors|skipped)=(\d+)", output[ran.end():])}
    failed = numbers.get("failures", 0) + numbers.get("errors", 0)
    skipped = numbers.get("skipped", 0)
    return int(ran.group(1)) - failed - skipped, failed, skipped


def main():
    folder = sys.argv[1]
    total = [0, 0, 0]
    for entry in xml.parse(os.path.join(folder, "ctest.junit")).getroot().iter("testcase"):
        status = entry.get("status")
        if status == "disabled":
            continue
        counts = cases_of_program(os.path.join(folder, entry.get("name") + ".xml")) or cases_of_unittest(
            entry.findtext("system-out") or "")
        by_entry = {"run": (1, 0, 0), "fail": (0, 1, 0)}.get(status, (0, 0, 1))
        if counts is None or sum(counts) == 0 or (status == "fail" and counts[1] == 0):
            counts = by_entry
        total = [sum(pair) for pair in zip(total, counts)]
    print(*total)


if __name__ == "__main__":
    main()
