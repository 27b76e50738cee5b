"""Counts test results: prints "PASSED FAILED SKIPPED" for the folder of one ctest run.

The folder holds ctest.junit and, for each gtest program, its own XML: where a program wrote one its
cases are counted, otherwise the ctest entry counts as one test. What failed, and how, goes to
standard error: a test's own output is long past by the end of a run.
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


def failures_of_program(path):
    """What each failed case of a gtest XML says, none where it is not whole."""
    try:
        cases = list(xml.parse(path).getroot().iter("testcase"))
    except (OSError, xml.ParseError):
        return []
    return [
        f"{case.get('classname')}.{case.get('name')}: {failure.get('message')}"
        for case in cases for failure in case.findall("failure")
    ]


def last_case(output):
    """The gtest case at which a program ended that did not come to its end."""
    begun = re.findall(r"^\[ RUN      \] (\S+)", output, re.MULTILINE)
    ended = re.findall(r"^\[ +(?:OK|FAILED|SKIPPED) +\] (\S+)", output, re.MULTILINE)
    return begun[-1] if begun and begun[-1] not in ended else None


def describe_failure(entry, program_xml):
    """Lines that say how a test of ctest failed."""
    output = entry.findtext("system-out") or ""
    lines = [f"{entry.get('name')}: failed after {float(entry.get('time') or 0):.1f} s"]
    details = failures_of_program(program_xml)
    if not details and last_case(output):
        details = [f"it ended in {last_case(output)}"]
    if not details:
        details = re.findall(r"^(?:ERROR|FAIL): .*", output, re.MULTILINE)
    for detail in details[:20]:
        lines += ["  " + line for line in detail.splitlines()[:20]]
    return lines


def main():
    folder = sys.argv[1]
    total = [0, 0, 0]
    for entry in xml.parse(os.path.join(folder, "ctest.junit")).getroot().iter("testcase"):
        status = entry.get("status")
        if status == "disabled":
            continue
        program_xml = os.path.join(folder, entry.get("name") + ".xml")
        counts = cases_of_program(program_xml) or cases_of_unittest(entry.findtext("system-out") or "")
        if status == "fail":
            print(*describe_failure(entry, program_xml), sep="\n", file=sys.stderr)
        by_entry = {"run": (1, 0, 0), "fail": (0, 1, 0)}.get(status, (0, 0, 1))
        if counts is None or sum(counts) == 0 or (status == "fail" and counts[1] == 0):
            counts = by_entry
        total = [sum(pair) for pair in zip(total, counts)]
    print(*total)


if __name__ == "__main__":
    main()
