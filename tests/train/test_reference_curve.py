import hashlib
import json

import pytest

from diptych.core.config import flatten
from diptych.core.errors import ConfigError, DataError
from diptych.models import sizes
from diptych.models.text_transformer import TextTransformerConfig
from diptych.recipes.find import resolve
from diptych.train.doctor import WINDOW, Curve, Doctor, Facts
from diptych.train.loop import train
from diptych.train.reference_curve import (
    ALONE,
    NEWER,
    curve_path,
    find_curve,
    main,
    points_of,
    settings_hash,
    smoothed,
    write_curve,
)
from diptych.train.resume import is_free
from tests.train.tiny_run import tiny_config

CURVE = Curve(((100, 4.0, 3.5, 4.5), (200, 2.0, 1.8, 2.2)), runs=3)
FACTS = Facts(samples_total=200, warmup_samples=0, global_batch=10, records=200, curve=CURVE)


def _runs(data, folder, **changes):
    return [
        train(tiny_config(data, seed=seed, log_every_samples=16, samples_seen=192, **changes), folder / f"{seed}")
        for seed in (0, 1)
    ]


def test_a_curve_is_written_from_runs_and_found_by_the_next(data, tmp_path, capsys):
    runs = _runs(data, tmp_path)
    path = tmp_path / "curve.json"
    main([*map(str, runs), "--out", str(path)])
    assert capsys.readouterr().out.strip() == str(path)
    kept = json.loads(path.read_text())
    assert (kept["recipe"], kept["runs"], len(kept["points"])) == ("tiny", 2, 20)
    assert all(low < loss < high for _, loss, low, high in kept["points"])
    config = tiny_config(data, seed=7, log_every_samples=32, samples_seen=192)  # seed and cadence are free
    curve = find_curve(config, "21", path)
    assert curve.runs == 2
    assert curve.points[-1][0] == 192
    assert find_curve(config, "22", path) is None
    assert find_curve(config.replace(train=config.train.replace(lr=0.5)), "21", path) is None
    assert find_curve(config.replace(recipe=""), "21", path) is None
    assert find_curve(config, "21") is None  # none is kept for the tests' recipe


@pytest.mark.slow
def test_a_run_is_told_that_it_left_its_band(data, tmp_path, monkeypatch, capsys):
    import diptych.train.reference_curve as reference_curve

    path = write_curve(_runs(data, tmp_path), tmp_path / "curve.json")
    kept = json.loads(path.read_text())
    kept["points"] = [(x, 0.1, 0.05, 0.15) for x, *_ in kept["points"]]
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(reference_curve, "curve_path", lambda recipe: path)
    capsys.readouterr()
    run = train(tiny_config(data, log_every_samples=16, samples_seen=192), tmp_path / "off")
    found = [json.loads(line) for line in (run / "doctor.jsonl").read_text().splitlines()]
    assert "off_the_curve" in [f["code"] for f in found]
    assert "it was 0.100 (0.050 to 0.150, 2 runs)" in capsys.readouterr().err


@pytest.mark.parametrize(("loss", "severity"), [(3.0, "warning"), (1.0, "note"), (2.1, None)])
def test_the_doctor_compares_with_the_line_between_points(loss, severity):
    doctor, found = Doctor(FACTS), []
    for i in range(WINDOW):
        found += doctor.observe({"samples_seen": 196 + i, "loss": loss})
    found = [f for f in found if f.code == "off_the_curve"]
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert CURVE.at(150) == (3.0, pytest.approx(2.65), pytest.approx(3.35))
    assert CURVE.at(99) is None
    assert CURVE.at(201) is None


def test_bands():
    one = [(float(x), 10.0 - x / 20) for x in range(0, 101, 5)]
    alone = points_of([one], 100)
    assert alone[0] == (10, 9.5, pytest.approx(9.5 * (1 - ALONE), rel=1e-3), pytest.approx(9.5 * (1 + ALONE), rel=1e-3))
    assert alone[-1][:2] == (100, 5.0)
    near = points_of([one, [(x, y * 1.001) for x, y in one]], 100)
    assert near[-1][3] - near[-1][1] == pytest.approx(0.03 * 5, rel=0.01)  # not narrower than that
    far = points_of([one, [(x, y * 1.2) for x, y in one]], 100)
    assert far[-1][3] - far[-1][1] == pytest.approx(4 * 1.0 / 2**0.5, rel=0.01)
    assert smoothed([{"samples_seen": i, "loss": float(i)} for i in range(6)]) == [(4.0, 2.0), (5.0, 3.0)]


def test_what_is_no_curve_is_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="must be a run's folder"):
        write_curve([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="at least one run"):
        write_curve([])
    run = train(tiny_config(data, log_every_samples=16, samples_seen=192), tmp_path / "a")
    other = train(tiny_config(data, log_every_samples=16, samples_seen=192, lr=2e-3), tmp_path / "b")
    with pytest.raises(ConfigError, match="the same settings but for the seed"):
        write_curve([run, other])
    short = run / "metrics.jsonl"
    short.write_text("".join(f"{line}\n" for line in short.read_text().splitlines()[:8]))
    with pytest.raises(ConfigError, match="must be finished"):
        write_curve([run])
    with pytest.raises(SystemExit, match="reference_curve: "):
        main([str(run)])
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(DataError, match="must be a curve"):
        find_curve(tiny_config(data), "21", broken)


def test_names():
    assert curve_path("clip:tiny").name == "clip-tiny.json"
    assert curve_path("llava:tiny/align").name == "llava-tiny-align.json"
    assert len(settings_hash(tiny_config("x"))) == 16
    assert settings_hash(tiny_config("x")) == settings_hash(tiny_config("y", seed=4))


def test_a_setting_that_came_later_orphans_no_curve_while_it_is_off():
    plain, mixed = (sizes.tiny().replace(text=TextTransformerConfig(experts=n)) for n in (0, 4))
    before, after = (settings_hash(tiny_config("x").replace(model=m)) for m in (plain, mixed))
    assert before != after
    flat = {k: v for k, v in flatten(tiny_config("x").replace(model=plain)).items() if not is_free(k)}
    assert "model.text.experts" in flat
    known = {k: v for k, v in flat.items() if k.rpartition(".")[2] not in NEWER and k != "train.seed"}
    assert before == hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


@pytest.mark.parametrize("path", sorted(curve_path("x:y").parent.glob("*.json")), ids=lambda p: p.stem)
def test_what_is_stored_is_of_the_recipe_as_it_stands(path):
    kept = json.loads(path.read_text())
    name, _, stage = kept["recipe"].partition("/")
    run = resolve(name, ["data=x"])[1]
    one = next(r for r in run.before if r.stage == stage) if stage else run
    assert kept["settings"] == settings_hash(one), "the recipe has changed: write its curve anew, or remove it"
