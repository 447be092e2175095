"""What every op's test file does with its table of errors."""

from __future__ import annotations

import pytest


def errors_test(table: dict[str, tuple], call=None):
    """A test over `table`: name -> (thunk or changed arguments, exception type, text pattern).

    call: takes changed arguments as keywords; not needed where the table holds thunks.
    """

    @pytest.mark.parametrize("case", table)
    def test_errors(case):
        what, kind, text = table[case]
        with pytest.raises(kind, match=text):
            what() if call is None else call(**what)

    return test_errors
