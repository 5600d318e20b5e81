"""What a release consists of besides the code says the same in every place: versions, workflows, cards."""

import re
from pathlib import Path

import jax
import pytest
import yaml

from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.version import __version__
from harvest_jax.weights.folder import load_model

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"Version {__version__}" in (ROOT / "README.md").read_text()


def test_the_changelog_has_its_form_and_the_version_as_its_newest_release():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    releases = [heading for heading in headings if heading != "Unreleased"]
    assert headings in (["Unreleased", *releases], releases)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", release) for release in releases)
    assert releases[0].split()[0] == __version__
    versions = [tuple(map(int, release.split()[0].split("."))) for release in releases]
    assert versions == sorted(set(versions), reverse=True)
    for release in releases:  # tests/train/test_resume_fields.py and tests/end_to_end/ go on with it
        kept = ROOT / "tests/data" / f"version_{release.split()[0].replace('.', '_')}" / "workdir"
        assert list(kept.glob("checkpoints/*/MANIFEST.json")), f"keep a small workdir of {release}: CONTRIBUTING.md"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def test_the_citation_has_the_fields_of_its_format_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["url"].endswith("2310.19554")
    names = [(author["given-names"], author["family-names"]) for author in paper["authors"]]
    assert len(names) == len(set(names)) == 8  # the format refuses two equal authors


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_files_and_targets_that_the_pages_of_the_root_name_exist(name):
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in link or (ROOT / link).exists(), link
    for path in re.findall(r"`((?:tests|harvest_jax|configs|docs|\.github|\.ci)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", text, re.MULTILINE):
        assert f"\n{max(target)}:" in (ROOT / "Makefile").read_text(), target


def test_the_model_card_says_what_the_packaged_model_is():
    config, params = load_model(SHIPPED)
    card = (SHIPPED / "README.md").read_text()
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    for number in (count(params), count(params["video"]), count(params["text"])):
        assert f"{number:,}" in card
    assert f"{config.video.image_size} x {config.video.image_size} pixels" in card


def test_the_workflow_runs_what_ci_run_runs():
    """Add a target to the jobs of ci.yml when .ci/run gets one."""
    targets = set(re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    jobs = WORKFLOWS["ci.yml"]["jobs"].values()
    matrices = [job["strategy"]["matrix"].get("target", []) for job in jobs]
    runs = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert targets
    assert targets <= {target for matrix in matrices for target in matrix} | set(
        re.findall(r"make (\w+)", "\n".join(runs))
    )


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_take_actions_at_a_commit_and_have_few_rights(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])


def test_a_release_is_tried_on_every_python_before_it_is_published_without_a_secret():
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert (jobs["try"]["needs"], jobs["publish"]["needs"]) == ("build", "try")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "release"
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert jobs["try"]["strategy"]["matrix"]["python"] == classifiers
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
