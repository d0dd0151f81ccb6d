"""What came of a recheck."""

from __future__ import annotations

import pytest

from nr_agent.policies import recheck_outcome


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("657-233=434", "Wait, let me redo that: 7-3=4, 5-3=2, 6-2=4. So 657-233=424, not what I had", "changed"),
        ("657-233=424", "7-3=4, 5-3=2, 6-2=4. So 657-233=424, as I had", "confirmed"),
        ("First 2+2=5, then 5+1=6", "2+2=4. So 5+1=6", "confirmed"),
        ("2+2=5", "2+2=5, no: 2+2=4", "changed"),
        ("2 + 2 = 5", "So 2+2=4.", "changed"),
        ("The word has 3 letters", "Let me count: 4, not what I had", "changed"),
        ("The word has 3 letters", "Counting again gives 3, as I had", "confirmed"),
        ("2+2=5", "Something else: 3+3=6", "unclear"),
        ("", "", "unclear"),
    ],
)
def test_last_claim_is_compared_with_its_repetition(before, after, outcome):
    assert recheck_outcome(before, after) == outcome
