"""Whatever is typed, and whatever a file holds: a sentence and a documented exit code."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedoperator.cli import main, options

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-digits" / "federation.yaml"
CODES = {*options.EXITS, 3}
"""Those that every help names, and the one that some of them add."""

VERBS = ["validate", "plan", "apply", "watch", "describe", "logs", "suspend", "resume", "diff"]
VERBS += ["export", "models list", "models download", "models verify", "models push", "run"]
ODD = ["digits", "a/b", "no/such/folder", "-n", "--", "-o", "json", "--round", "-1", "3", "."]
ODD += ["--parameters", "1e9", "7B", "--model", "--digest", "--participant", "\0", "x" * 300]
ODD += ["--out", "--claim", "a=b", "--dry-run", "--role", "train", "..", "NAME", "\udcff"]
WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(ODD),
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No cluster, and nothing in the folder but a training."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(EXAMPLE.read_text())
    return tmp_path


def _code(arguments: list[str]) -> int:
    try:
        return main.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def _said(capfd: pytest.CaptureFixture[str], code: int, arguments: object) -> None:
    said = capfd.readouterr()
    assert code in CODES, arguments
    assert "Traceback" not in said.err + said.out, arguments
    assert code not in (1, 2) or said.err or said.out, "something is wrong, and nothing says what"


patient = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@patient
@given(verb=st.sampled_from(VERBS), words=st.lists(WORDS, max_size=5))
def test_any_words_are_answered_by_a_sentence(
    capfd: pytest.CaptureFixture[str], verb: str, words: list[str]
) -> None:
    typed = [*verb.split(), *words]
    _said(capfd, _code(typed), typed)


@patient
@given(
    verb=st.sampled_from(["validate", "plan", "diff"]),
    content=st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.builds(
            lambda a, b: EXAMPLE.read_bytes().replace(a, b, 1),
            st.sampled_from([b"rounds", b"10", b"name", b"{", b": ", b"\n  "]),
            st.binary(max_size=8),
        ),
    ),
)
def test_a_file_of_anything_is_answered_by_a_sentence(
    capfd: pytest.CaptureFixture[str], nowhere: Path, verb: str, content: bytes
) -> None:
    (nowhere / "bad.yaml").write_bytes(content)
    typed = [verb, "bad.yaml", *(["good.yaml"] if verb == "diff" else [])]
    _said(capfd, _code(typed), content)


@patient
@given(content=st.binary(max_size=80), name=st.sampled_from(["m.safetensors", "m.index.json"]))
def test_a_model_of_anything_is_answered_by_a_sentence(
    capfd: pytest.CaptureFixture[str], nowhere: Path, content: bytes, name: str
) -> None:
    (nowhere / name).write_bytes(content)
    _said(capfd, _code(["plan", "good.yaml", "--model", name]), content)


@pytest.mark.parametrize("file", ["training.yaml", "status.yaml"])
@pytest.mark.parametrize("content", ["", "[", "a: 1", "metadata: {name: x}\nspec: 3", "\0"])
@pytest.mark.parametrize("verb", ["describe", "logs", "models list", "diff"])
def test_a_folder_that_is_no_run_is_named(
    capfd: pytest.CaptureFixture[str], nowhere: Path, verb: str, file: str, content: str
) -> None:
    out = nowhere / "out"
    (out / "rounds").mkdir(parents=True)
    (out / "training.yaml").write_text("metadata: {}")
    (out / file).write_text(content)
    typed = [*verb.split(), "out", *(["good.yaml"] if verb == "diff" else [])]
    code = _code(typed)
    assert code == 1
    _said(capfd, code, typed)


def test_every_command_without_a_cluster_says_how_to_name_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    for typed in (
        ["describe", "digits"],
        ["logs", "digits"],
        ["models", "list", "digits"],
        ["suspend", "digits"],
        ["apply", "good.yaml"],
        ["watch", "digits"],
        ["diff", "digits", "team-a/digits"],
        ["plan", "good.yaml", "--cluster"],
    ):
        assert _code(typed) == 1
        assert "set KUBECONFIG" in capfd.readouterr().err, typed
    assert not os.path.exists("out")


def test_every_help_names_its_exit_codes(capfd: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert _code([*verb.split(), "--help"]) == 0
        assert "exit codes: 0 " in capfd.readouterr().out, verb
