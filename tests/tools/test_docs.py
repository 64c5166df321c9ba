"""Tables of the documents that are computed, not copied, from recorded tables."""

import pytest

from tools import docs

TABLE = """model,depth,learning_rate,accuracy,accuracy_sd,seeds,chosen
L0,0,0.1,0.1,0,3,False
L1,1,0.1,0.9,0,3,False
L2,2,0.1,0.9025,0,3,False
L3,3,0.1,0.905,0,3,True
L1,1,0.2,0.95,0,3,True
L2,2,0.2,0.94,0,3,True
L3,3,0.2,,,3,False
L1,1,0.4,0.9,0,3,False
L2,2,0.4,,,3,False
"""


@pytest.fixture
def rates(tmp_path, monkeypatch):
    path = tmp_path / "rates.csv"
    path.write_text(TABLE, encoding="utf-8")
    monkeypatch.setattr(docs, "RATES", path)


@pytest.mark.usefixtures("rates")
def test_the_slope_is_of_the_depths_that_finish_at_a_rate():
    assert docs.trend_by_rate().splitlines()[2:] == [
        "| 0.1 | 1 to 3 | +0.250 |",
        "| 0.2 | 1 to 2 | -1.000 |",
    ]
    assert docs.trend_by_rate_claim().endswith(
        "accuracy changes by +0.250 points for each layer at 0.1 and by -1.000 at 0.2, at which "
        "networks of more than 2 layers diverge."
    )
