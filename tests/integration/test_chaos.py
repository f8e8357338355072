"""A short storm over a small study; `make chaos` is the long one."""

from tests.chaos.play import play
from tests.chaos.storm import Weather

SHORT = Weather(
    kill_every_s=2.0,
    postgres_restarts_s=(3.0, 16.0),
    packets_dropped_s=(6.0,),  # before the study can have ended
    dropped_for_s=8.0,
    mlflow_killed_s=(4.0,),
    mlflow_away_for_s=6.0,
    frozen_s=(2.0,),
    frozen_for_s=6.0,
    spell_s=1e6,  # all of that once
)


def test_a_storm_loses_nothing_and_doubles_nothing() -> None:
    storm, verdict = play(SHORT, workers=4, trials=9, epochs=4, seed=1)
    assert storm.counts["kills"] >= 5
    assert storm.counts["drops"] == storm.counts["mlflow kills"] == 1
    assert storm.counts["restarts"] >= 1
    assert verdict.ended == 9
    assert verdict.rungs >= 9 * 4
    assert verdict.faults == {}, verdict.notes
