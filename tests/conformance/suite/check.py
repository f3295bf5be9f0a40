"""Cases: how they are declared, run and reported."""

import sys
import time
import traceback

CASES = []


def case(group):
    """Declares a function as a case of `group`. Its name, with spaces, is what it promises."""
    def declare(function):
        CASES.append((group, function.__name__.replace("_", " "), function))
        return function
    return declare


def table(group, rows, run):
    """Declares one case per row: `run(env, row)`, named by the row's first column."""
    for row in rows:
        CASES.append((group, row[0], lambda env, row=row: run(env, row)))


def equal(got, want, what=""):
    assert got == want, f"{what or 'value'}: got {got!r}, want {want!r}"


def eventually(what, condition, seconds=5):
    """Waits until `condition` holds: for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.01)


def run(env, wanted):
    """Runs the cases whose group and name hold every word of `wanted`. Returns how many passed and failed."""
    passed, failed, group_of = 0, 0, None
    for group, name, function in CASES:
        if group in env.skipped or not all(word in f"{env.name} {group} {name}" for word in wanted):
            continue
        if group != group_of:
            group_of = group
            print(f"== {env.name}: {group}", flush=True)
        try:
            began = time.monotonic()
            function(env)
            assert env.alive(), "the proxy has died"
            eventually("no connection of the case is left open", lambda: env.open_connections() == 0)
            passed += 1
            took = time.monotonic() - began
            if took > 2:
                print(f"   {took:.1f} s: {name}", flush=True)
        except Exception as error:  # one case must not end the others
            failed += 1
            print(f"FAILED {env.name}: {group}: {name}\n  {type(error).__name__}: {error}", flush=True)
            trace = [frame for frame in traceback.extract_tb(sys.exc_info()[2]) if "/suite/" in frame.filename]
            for frame in trace[1:]:
                print(f"    {frame.filename.rsplit('/', 1)[1]}:{frame.lineno} {frame.line}", flush=True)
            if not env.alive():
                print("the proxy has died; its log:\n" + env.log_tail(), flush=True)
                return passed, failed
    return passed, failed
