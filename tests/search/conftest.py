import types

import pytest

import harvest_jax
from data_pipeline.decode.window_rule import WindowRule
from harvest_jax import cli
from harvest_jax.search import index as index_file
from harvest_jax.search.update import made_by
from tests.helpers.colour_films import ColourModel, film


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A folder of three films, a cache of its own, a model that sees colours, and `go(words, ...)`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(harvest_jax, "load", ColourModel)
    monkeypatch.setattr(ColourModel, "embedded", 0)
    folder = tmp_path / "films"
    film(folder / "r.mp4", "red")
    film(folder / "below" / "deep" / "g.mp4", "green")
    film(folder / "b.MP4", "blue")
    (folder / "notes.txt").write_text("no film")

    def go(*words, model="colours", videos=folder, code=0):
        capsys.readouterr()
        ColourModel.embedded = 0
        arguments = ["--model", str(model), "--videos", str(videos), "--workers", "1"]
        assert cli.main(["search", *arguments, *words]) == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return types.SimpleNamespace(out=out, err=err, embedded=ColourModel.embedded)

    index = index_file.default_path(folder)

    def opened(model="colours", **rule):
        return index_file.open_index(index, made_by(ColourModel(model), WindowRule(**rule)))

    return types.SimpleNamespace(folder=folder, go=go, index=index, tmp=tmp_path, opened=opened)
