"""The rule on slow tests notices them, and those alone."""

from pathlib import Path

import pytest

from effort import LIMIT, Rule, piece

TESTS = """
import subprocess, sys, time
import pytest

def work(seconds=0.2):
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass

def test_short(): pass
def test_waits(): time.sleep(0.1)
def test_long(): work()
CHILD = "import time\\nwhile time.process_time() < 0.2: pass"
def test_child(): subprocess.run([sys.executable, "-c", CHILD], check=True)
@pytest.mark.slow
def test_marked(): work()
def test_fails():
    work()
    assert 1 == 2, "its own failure"
def test_skips():
    work()
    pytest.skip("its own reason")
@pytest.fixture
def prepared(): work()
def test_prepared(prepared): pass
"""


class Outcomes:
    """A plugin of pytest that keeps how each test ended, and its text."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.told: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.ended[report.head_line or ""] = report.outcome
            self.told[report.head_line or ""] = report.longreprtext


def outcomes(folder: Path, rule: Rule) -> Outcomes:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: slow\n")
    path = folder / f"test_generated_{folder.name}.py"
    path.write_text(TESTS)
    kept = Outcomes()
    options = ["-q", "-c", str(folder / "pytest.ini"), "-p", "no:cacheprovider", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        pytest.main(options, plugins=[rule, kept])
    return kept


@pytest.mark.parametrize("slowness", [0.2, 1.0])
def test_a_slow_test_fails(tmp_path: Path, slowness: float) -> None:
    """Never is the limit lower on a faster machine."""
    found = outcomes(tmp_path, Rule(0.06, lambda: slowness * 0.045))
    failed = {name for name, outcome in found.ended.items() if outcome == "failed"}
    assert failed == {"test_long", "test_child", "test_fails"}
    assert found.ended["test_skips"] == "skipped"
    assert "CPU seconds, and the limit is 0.06: make it smaller, or mark it slow." in found.told["test_long"]
    assert "its own failure" in found.told["test_fails"]
    assert "limit" not in found.told["test_fails"]


def test_a_slower_machine_has_a_higher_limit(tmp_path: Path) -> None:
    found = outcomes(tmp_path, Rule(0.06, lambda: 0.05 * 40))
    assert {name for name, outcome in found.ended.items() if outcome == "failed"} == {"test_fails"}


def test_the_suite_is_held_to_it(request: pytest.FixtureRequest) -> None:
    (rule,) = (one for one in request.config.pluginmanager.get_plugins() if type(one) is Rule)
    assert rule.limit == LIMIT == 2
    assert 0.01 < piece() < 5
