"""`fedtrain validate`: one line for each problem, never a stack trace."""

import io
import json

import pytest
import yaml

from fedoperator.cli import validate


@pytest.fixture
def judge(tmp_path, capsys):
    """(exit code, lines) for a file of this text, or of these documents."""

    def ask(*content: str | dict[str, object]) -> tuple[int, list[str]]:
        file = tmp_path / "training.yaml"
        texts = (c if isinstance(c, str) else yaml.safe_dump(c) for c in content)
        file.write_text("---\n".join(texts))
        code = validate.run(str(file))
        captured = capsys.readouterr()
        assert captured.err == ""
        return code, [line.removeprefix(f"{file}: ") for line in captured.out.splitlines()]

    return ask


def test_a_valid_training_is_called_valid(judge, the_design_example) -> None:
    lines = ["digits is valid: 10 rounds with 3 participants"]
    assert judge(the_design_example) == (0, lines)


def test_every_problem_is_one_line(judge, a_training) -> None:
    code, lines = judge(a_training(rounds=0, retries="many", parameters={"a": "\n"}))
    assert code == 1
    assert lines == [
        "spec.rounds: 0 is too small; use 1 or more",
        'spec.retries: "many" is not a whole number; use 0 to 100, or leave it out for 2',
    ]


def test_other_kinds_in_the_file_are_passed_over(judge, a_training) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"wrong": True}}
    lines = ["digits is valid: 3 rounds with 2 participants"]
    assert judge(claim, "\n", a_training()) == (0, lines)


def test_of_several_trainings_each_line_names_its_own(judge, a_training) -> None:
    code, lines = judge(a_training(), a_training(name="letters", rounds=0))
    assert code == 1
    assert lines == [
        "digits is valid: 3 rounds with 2 participants",
        "letters: spec.rounds: 0 is too small; use 1 or more",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is empty; write a FederatedTraining into it"),
        ("# later\n---\n", "is empty; write a FederatedTraining into it"),
        ("a: [1,", "is not YAML in line 1, column 7: expected the node content"),
        ("a: 1\nb: 2\na: 3\n", "is not YAML in line 3, column 1: a is given twice; "),
        ("\ta: 1", "is not YAML in line 1, column 1: a tab; indent with spaces"),
        ("kind: a\nspec:\n\trounds: 3\n", "is not YAML in line 3, column 1: a tab; indent with"),
        ("- a\n- b\n", "is a list or a text, not a resource; "),
        ("a: &x [*x]\n", "apiVersion: is missing; "),
        ("a: !!python/none x", "is not YAML in line 1, column 4: could not determine"),
        ("? [a]\n: b\n", "is not YAML in line 1, column 3: found unhashable key"),
        ("kind: Pod\napiVersion: v1\n", 'apiVersion: "v1" is not fedtrain.dev/v1alpha1; '),
        (
            "kind: FederatedTraining\napiVersion: fedtrain.dev/v1\n",
            'apiVersion: "fedtrain.dev/v1" is not fedtrain.dev/v1alpha1; ',
        ),
        (
            "kind: FederatedTraning\napiVersion: fedtrain.dev/v1alpha1\n",
            'kind: "FederatedTraning" is not FederatedTraining; ',
        ),
        ("spec: {1: 2}\n", "apiVersion: is missing; "),
        ("a: \x00", "is not text at character 3; check the path"),
    ],
)
def test_what_is_no_training_gets_one_clear_sentence(judge, text, line) -> None:
    code, lines = judge(text)
    assert code == 1
    assert lines[0].startswith(line), lines


def test_a_file_that_is_not_there_gets_one_clear_sentence(tmp_path, capsys) -> None:
    path = str(tmp_path / "nowhere.yaml")
    assert validate.run(path) == 1
    out = capsys.readouterr().out
    assert out == f"{path}: cannot be read: No such file or directory; check the path\n"


def test_a_file_that_is_no_text_gets_one_clear_sentence(tmp_path, capsys) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"{\xff\xfe\x00")
    assert validate.run(str(path)) == 1
    sentence = "is not UTF-8 text at byte 1; check the path, or save it as UTF-8"
    assert capsys.readouterr().out == f"{path}: {sentence}\n"


def test_a_folder_gets_one_clear_sentence(tmp_path, capsys) -> None:
    assert validate.run(str(tmp_path)) == 1
    sentence = "is a folder; name the files in it that are meant"
    assert capsys.readouterr().out == f"{tmp_path}: {sentence}\n"


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_too(judge, a_training, indent) -> None:
    lines = ["digits is valid: 3 rounds with 2 participants"]
    assert judge(json.dumps(a_training(), indent=indent)) == (0, lines)


def test_what_contains_itself_gets_one_clear_sentence(judge, a_training) -> None:
    text = yaml.safe_dump(a_training()).replace("spec:", "spec:\n  parameters: &x {a: *x}")
    code, (line,) = judge(text)
    assert code == 1
    assert line.startswith("spec.parameters: NaN, infinity and what contains itself cannot be")


def test_a_dash_reads_from_standard_input(monkeypatch, capsys, a_training) -> None:
    given = io.BytesIO(yaml.safe_dump(a_training()).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(given))
    assert validate.run("-") == 0
    assert capsys.readouterr().out == "digits is valid: 3 rounds with 2 participants\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5e-3", 0.0015),
        ("-2E5", -200000),
        ("1.0", 1),
        ("0.5", 0.5),
        (".5", 0.5),
        ("12", 12),
        ("0x10", 16),
        ("2026-01-31", "2026-01-31"),
        ("1:30", "1:30"),
        ("30m", "30m"),
        ("e3", "e3"),
        ("-", ["-"]),
    ],
)
def test_values_are_read_as_kubectl_reads_them(text, value) -> None:
    if value == ["-"]:
        text, value = '"-"', "-"
    (document,) = validate.documents(f"value: {text}")
    assert document == {"value": value}
    assert type(document["value"]) is type(value)


def test_keys_are_text_as_kubectl_has_them() -> None:
    (document,) = validate.documents("{1: a, 0.5: b, true: c, d: &e {2: f}, g: {<<: *e, 3: h}}")
    assert document == {
        "1": "a",
        "0.5": "b",
        "true": "c",
        "d": {"2": "f"},
        "g": {"2": "f", "3": "h"},
    }


@pytest.mark.apiserver
def test_kubectl_reads_values_the_same_way(kubectl, a_training, tmp_path) -> None:
    values = (
        "{1: a, 0.5: b, true: c}",
        "1.0",
        "1e20",
        "1e22",
        "1e-3",
        "1.5e-3",
        "-2E5",
        ".5",
        "12",
        "0x10",
        "2026-01-31",
        "1:30",
        "30m",
        "e3",
    )
    written = "".join(f"\n    {chr(97 + n)}v: {text}" for n, text in enumerate(values))
    file = tmp_path / "training.yaml"
    text = yaml.safe_dump(a_training(name="values"))
    file.write_text(text.replace("spec:", f"spec:\n  parameters:{written}"))
    (document,) = validate.documents(file.read_text())
    code, reply = kubectl("create", "-f", str(file))
    assert code == 0, reply
    stored = kubectl.read("fedt", "values")
    assert stored["spec"]["parameters"] == document["spec"]["parameters"]
    texts = [json.dumps(of["spec"]["parameters"], sort_keys=True) for of in (stored, document)]
    assert texts[0] == texts[1]
