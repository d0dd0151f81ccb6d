from nr_agent.engine.protocol import Segment, SequenceRef
from nr_agent.evaluation.controls import EntropyDetector, OracleDetector, RandomDetector
from nr_agent.testing import ScriptedEngine

NOWHERE = SequenceRef(engine="f", id="s", length=5)


def segment(entropies=(0.1,), ref=NOWHERE):
    return Segment(ref, ref.length, [1], [], [-0.1], list(entropies), "stop_string")


def levels(watch, text, step, ref=NOWHERE):
    return {event.level for event in watch.look(segment(ref=ref), step=step, text=text).events}


def test_the_oracle_sees_slips_circles_and_stated_answers():
    engine = ScriptedEngine([])
    ref = engine.open(engine.codec.encode('How often is the letter "e" in: "the"?'))
    watch = OracleDetector(engine).observe("episode")
    assert levels(watch, "Try 4+7=11, 11+3=14. Not 31.", 0, ref) == set()
    assert levels(watch, "Try 4+7=12, 12+3=15. Not 31.", 1, ref) == {"intra_step"}
    fork = watch.fork()
    for branch in (watch, fork):
        assert levels(branch, "Try 4+7=11, 11+3=14. Not 31.", 2, ref) == {"inter_step"}
    assert levels(watch, "So the answer is 14.", 3, ref) == {"instance"}
    assert levels(watch, "4+7=11, 11+3=14", 4, ref) == set()
    assert levels(watch, "the: t h e has 2", 5, ref) == {"intra_step"}


def test_random_times_come_at_their_rate_and_repeat_in_another_run():
    def drawn(seed=0, run="one"):
        detector = RandomDetector("f", {"intra_step": 0.25}, seed)
        return [levels(detector.observe(f"{run} {i}"), f"text {i}", 0) for i in range(2000)]

    assert 0.21 < sum(map(bool, drawn())) / 2000 < 0.29
    assert drawn() == drawn(run="two")
    assert drawn() != drawn(seed=1)


def test_random_times_differ_where_the_same_was_written_after_other_thoughts():
    def drawn(before):
        watch = RandomDetector("f", {"intra_step": 0.5}).observe("episode")
        watch.look(segment(), step=0, text=before)
        return tuple(levels(watch.fork(), "text", step) for step in range(1, 41))

    assert drawn("first") == drawn("first") != drawn("other")


def test_entropy_speaks_above_its_limit():
    watch = EntropyDetector("f", limit=0.5).observe("episode")
    assert not watch.look(segment((0.1, None, 0.4)), step=0, text="").events
    assert watch.look(segment((0.1, None, 0.6)), step=1, text="").events[0].level == "intra_step"
