"""What every plugin must do."""

import benchbench_my_idea

from benchbench import parametrize_with_checks


@parametrize_with_checks(benchbench_my_idea)
def test_conformance(check):
    check()
