import math

import pytest

from diptych.train.doctor import WINDOW, Doctor, Facts, examine

FACTS = Facts(
    samples_total=10_000, warmup_samples=500, global_batch=128, records=5_000, max_logit_scale=100.0, context_length=32
)
HEALTHY = {
    "loss": 1.0, "chance_loss": math.log(128), "chance_terms": 128.0, "logit_scale": 30.0, "duplicate_captions": 0.01,
    "duplicate_images": 0.0, "truncated": 0.0, "data_wait": 0.05, "positive_cosine": 0.5, "negative_cosine": 0.1,
    "nonfinite_steps": 0, "quarantined": 0,
}  # fmt: skip


def _run(n=2 * WINDOW, start=2_000, **changes):
    return [{**HEALTHY, "samples_seen": start + 128 * i, **changes} for i in range(n)]


def test_a_healthy_run_is_left_in_peace():
    assert examine(_run(), FACTS) == []


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"loss": 4.84}, "loss_at_chance", "ln 128 = 4.852 is what guessing gives: the model tells no pair apart"),
        ({"duplicate_captions": 0.61}, "repeated_captions", "61% of the pairs share a caption"),
        ({"duplicate_images": 0.3}, "repeated_images", "30% of the pairs share their image"),
        ({"truncated": 0.4}, "truncation", "40% of the captions lose their end to the context of 32 tokens"),
        ({"data_wait": 0.7}, "starved", "the device starves"),
        ({"logit_scale": 100.0}, "temperature_saturated", "clamp of 100"),
        ({"logit_scale": 1.2, "samples_seen": 9_000}, "temperature_collapsed", "given up"),
        ({"negative_cosine": 0.99}, "collapse", "point the same way"),
        (
            {"codebook_use": 0.04, "perplexity": 3.2, "samples_seen": 9_000},
            "codebook_idle",
            "4.0% of the codebook (perplexity 3.2)",
        ),
        ({"nonfinite_steps": 3}, "nonfinite", "3 steps"),
        ({"quarantined": 2}, "quarantine", "2 records"),
    ],
)
def test_each_sickness_is_named_once_with_advice(changes, code, words):
    findings = examine(_run(**changes), FACTS)
    assert [f.code for f in findings] == [code]
    assert words in findings[0].message
    assert len(findings[0].advice) > 20
    assert findings[0].samples_seen >= 2_000


def test_chance_is_not_complained_of_during_warmup():
    assert examine(_run(start=0, n=5, loss=4.85), FACTS) == []


def test_the_advice_at_chance_names_repeated_captions_as_the_cause():
    found = {f.code: f for f in examine(_run(loss=4.85, duplicate_captions=0.61), FACTS)}
    assert "61% of the pairs" in found["loss_at_chance"].advice


def test_divergence_and_parting_need_a_history():
    falling = _run(loss=1.0)
    assert [f.code for f in examine(falling + _run(start=6_000, loss=3.0), FACTS)] == ["divergence"]
    doctor = Doctor(FACTS)
    for i, (loss, val) in enumerate([(2.0, 2.5), (1.5, 2.2), (1.0, 2.4), (0.7, 2.7)]):
        for record in _run(n=WINDOW, start=1_000 * i, loss=loss):
            assert doctor.observe(record) == []
        findings = doctor.observe({"samples_seen": 1_000 * i + 700, "val_loss": val})
    assert [f.code for f in findings] == ["train_and_validation_part"]
    assert "by heart" in findings[0].message


def test_budget_and_batch_are_judged_against_the_data():
    few = Facts(samples_total=100_000, warmup_samples=0, global_batch=128, records=300)
    assert [f.code for f in examine(_run(), few)] == ["many_epochs"]
    tiny = Facts(samples_total=100_000, warmup_samples=0, global_batch=512, records=300)
    assert [f.code for f in examine(_run(), tiny)] == ["batch_exceeds_data"]


def test_a_note_may_grow_into_a_warning():
    findings = examine(_run(data_wait=0.3) + _run(data_wait=0.9), FACTS)
    assert [f.severity for f in findings] == ["note", "warning"]


def test_records_may_lack_anything():
    assert examine([{}, {"loss": float("nan")}, {"val_loss": 3.0}, {"truncated": None}], FACTS) == []


def test_a_finding_is_repeated_only_when_it_has_become_more_serious():
    wavering = [r for share in (0.45, 0.55, 0.45, 0.55) for r in _run(n=WINDOW, duplicate_captions=share)]
    assert [(f.code, f.severity) for f in examine(wavering, FACTS)] == [
        ("repeated_captions", "note"), ("repeated_captions", "warning"),
    ]  # fmt: skip


SHORT = Facts(samples_total=320, warmup_samples=64, global_batch=16, records=40, max_logit_scale=100.0)


def _steps(n: int = 20, **changes) -> list[dict]:
    return [{**HEALTHY, "samples_seen": 16 * (i + 1), **changes} for i in range(n)]


def test_a_run_of_twenty_steps_is_not_judged_before_its_end():
    slow = _steps(loss=4.85, negative_cosine=0.97, data_wait=0.6, truncated=0.4)
    learning = [*slow[:17], *_steps(3, samples_seen=320)]
    assert examine(slow[:19], SHORT) == []
    assert {f.code for f in examine(learning, SHORT)} <= {"starved"}
    found = {f.code: f for f in examine(slow, SHORT)}
    assert found.keys() == {"loss_at_chance", "collapse", "starved", "truncation"}
    assert found["loss_at_chance"].samples_seen == 320
    assert "20 steps are few: raise train.samples_seen" in found["loss_at_chance"].advice


def test_a_short_run_whose_loss_or_validation_wavers_is_left_in_peace():
    wavering = [{**r, "loss": 3.0 if i % 7 < 5 else 6.0} for i, r in enumerate(_steps())]
    assert examine(wavering, SHORT) == []
    doctor = Doctor(SHORT)
    for i, record in enumerate(_steps(12)):
        doctor.observe({**record, "loss": 3.0 - 0.1 * i})
        assert doctor.observe({"samples_seen": record["samples_seen"], "val_loss": 3.0 + 0.2 * i}) == []


WRITES = Facts(samples_total=10_000, warmup_samples=500, global_batch=128, records=5_000, writes=True)


def _val(seen: int, sight: float, error: float) -> dict:
    return {
        "samples_seen": seen, "val_loss": 2.0, "val_loss_mismatched": 2.0 + sight, "sight": sight, "sight_error": error
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "blind"),
    [
        (_val(9_000, 0.01, 0.02), True),
        (_val(9_000, -0.01, 0.001), True),
        (_val(9_000, 0.5, 0.02), False),
        (_val(4_000, 0.01, 0.02), False),
    ],
    ids=["late and nothing", "worse than nothing", "it looks", "early"],
)
def test_a_model_that_writes_without_looking_is_found_out(record, blind):
    doctor = Doctor(WRITES)
    for r in _run(start=2_000):
        doctor.observe({k: v for k, v in r.items() if k != "chance_terms"})
    for r in _run(start=8_500):
        doctor.observe(r)
    found = [f for f in doctor.observe(record) if f.code == "blind"]
    assert bool(found) is blind
    if blind:
        assert "the model writes without looking" in found[0].message
        assert "train.rates" in found[0].advice


def test_words_at_chance_are_not_called_pairs():
    (found,) = examine([{**r, "chance_loss": 3.0} for r in _run(loss=2.99, chance_terms=None)], WRITES)
    assert "3.000 is what guessing gives: the model knows no more of words than how often each comes" in found.message
    assert "128 texts" in found.advice


def test_experts_that_lie_idle_are_found_out():
    even = {"experts_busiest": 1.2, "experts_idlest": 0.8, "experts_entropy": 0.99}
    idle = {"experts_busiest": 3.1, "experts_idlest": 0.04, "experts_entropy": 0.6}
    assert examine(_run(**even), WRITES) == []
    (found,) = examine(_run(start=8_000, **idle), WRITES)
    assert (found.code, found.severity) == ("experts_idle", "warning")
    assert "gets 4% of an even share of the tokens, and another 3.1 times it" in found.message
    assert "experts_per_token" in found.advice
    assert examine(_run(start=600, **idle), WRITES) == [], "the balance needs some steps"
