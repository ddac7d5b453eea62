"""The conformance page says what the SQL tests say."""

import conformance


def test_the_page_is_up_to_date():
    assert conformance.PAGE.read_text() == conformance.page(), "run `make conformance`"


def test_every_feature_is_tested_by_a_statement():
    empty = [name for name, _, ours, _, missing in conformance.sections() if not ours and not missing]
    assert not empty
