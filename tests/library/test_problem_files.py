"""Problems are read from the files that benchmarks publish, and a bad line says where it is."""

import json
from pathlib import Path

import pytest

from nr_agent.errors import TaskError
from nr_agent.problem_files import read_problems

SHARED = Path(__file__).parents[3] / "shared" / "data"


def written(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "text", "reference"),
    [
        ({"question": "2+2?", "answer": "two and two\n#### 4"}, "2+2?", "4"),
        ({"Body": "He has 2 pens", "Question": "How many?", "Answer": 2.0}, "He has 2 pens. How many?", "2"),
        ({"input": "3 less 1?", "target": 2}, "3 less 1?", "2"),
        ({"problem": "Prove it."}, "Prove it.", None),
    ],
)
def test_every_published_form_is_read(tmp_path, row, text, reference):
    (problem,) = read_problems(written(tmp_path / "tests.jsonl", row, ""))
    assert (problem.text, problem.reference, problem.task, problem.seed) == (text, reference, "tests", None)


def test_only_the_first_are_read_if_only_those_are_asked_for(tmp_path):
    path = written(tmp_path / "many.jsonl", *({"question": str(i)} for i in range(5)), "broken")
    assert [problem.text for problem in read_problems(path, 3)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("row", "says"),
    [("{", "line 2 is no JSON"), ("[1]", "line 2 is a list"), ({"name": "x"}, "line 2 holds no problem")],
)
def test_a_bad_line_is_named(tmp_path, row, says):
    with pytest.raises(TaskError, match=says) as error:
        read_problems(written(tmp_path / "bad.jsonl", {"question": "1"}, row))
    assert error.value.hint


def test_a_file_without_problems_or_without_text_is_refused(tmp_path):
    with pytest.raises(TaskError, match="holds no problems"):
        read_problems(written(tmp_path / "empty.jsonl", ""))
    with pytest.raises(TaskError, match="cannot be read"):
        read_problems(tmp_path / "missing.jsonl")
    (tmp_path / "odd.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match="cannot be read"):
        read_problems(tmp_path / "odd.jsonl")


@pytest.mark.parametrize("name", ["gsm8k_test", "svamp_test", "mawps_multiarith"])
def test_the_public_files_are_read_whole(name):
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the checkout")
    problems = read_problems(path)
    assert len(problems) == len([line for line in path.read_text().splitlines() if line.strip()])
    assert all(problem.reference for problem in problems)


def test_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [{"question": "one\u2028two\u0085three?"}, {"question": "four?"}]
    path.write_text("\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert [problem.text for problem in read_problems(path)] == [row["question"] for row in rows]
