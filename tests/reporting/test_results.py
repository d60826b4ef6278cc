"""RESULTS.md says what the kept runs say."""

from __future__ import annotations

from reporting.results import REPOSITORY, kept_runs, results_page


def test_the_page_is_the_one_made_from_the_kept_runs():
    page = (REPOSITORY / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results_page(REPOSITORY / "results"), "run `python -m reporting.results`"


def test_every_kept_run_names_a_clean_commit():
    runs = kept_runs(REPOSITORY / "results")
    assert runs
    for name, config, _ in runs:
        commit = config["provenance"]["commit"]
        assert commit != "unknown" and not commit.endswith("+"), name
