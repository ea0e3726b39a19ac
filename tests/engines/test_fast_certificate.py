"""What a certificate of fast mode says of its numbers."""

from typing import Any

import pytest

from tracka.core.artifacts import CountsRecord, FastRecord
from tracka.engines import fast_certificate


def counts(successes: tuple[int, int] = (60, 60), episodes: int = 100, same_begin: int = 100) -> CountsRecord:
    return {
        "episodes": episodes,
        "same": 0,
        "same_begin": same_begin,
        "same_outcome": episodes,
        "reference_successes": successes[0],
        "other_successes": successes[1],
        "first_chunk": 0.01,
    }


def fast(**changes: Any) -> FastRecord:
    record: dict[str, Any] = {
        "exact_key": "0" * 64,
        "exact_proven": True,
        "exact_evidence": "9 of 9 episodes are the same to the bit",
        "answered": "fast",
        "type": "bfloat16",
        "margin": 0.05,
        **dict.fromkeys(("gains", "losses", "noise_flips", "noise_alone", "flips_alone"), 0),
        "mean": 0.002,
        "largest": 0.01,
        "size": 0.95,
    }
    return record | changes  # type: ignore[return-value]


def test_equal_outcomes_and_close_first_chunks_prove_fast_mode_and_never_call_it_exact() -> None:
    verdict = fast_certificate.judgement(fast(), counts())
    assert verdict["proven"] and not verdict["exact"]
    assert "first chunks differ by 0.21% of the actions' size in the mean and 1.05% at most" in verdict["evidence"]
    assert "60 and 60 successes, 0 losses, 0 gains: at most 2.6% worse" in verdict["evidence"]
    assert "there is no noise floor" in verdict["evidence"]


def test_where_neither_mode_succeeds_the_certificate_says_that_outcomes_certify_nothing() -> None:
    verdict = fast_certificate.judgement(fast(), counts((0, 0)))
    assert verdict["proven"]
    assert "outcomes certify nothing and the first chunks alone do" in verdict["evidence"]
    assert not fast_certificate.judgement(fast(mean=0.1), counts((0, 0)))["proven"]


def test_a_play_that_exact_mode_answered_proves_nothing_of_fast_mode_and_one_that_both_answered_is_refused() -> None:
    exact = fast_certificate.judgement(fast(answered="exact"), counts())
    assert exact["proven"] and exact["evidence"].startswith(fast_certificate.UNANSWERED)
    assert list(fast_certificate.limits(fast(answered="exact"), counts())) == [fast_certificate.UNANSWERED]
    both = fast_certificate.judgement(fast(answered="fast and exact"), counts())
    assert not both["proven"] and "fast mode answered some episodes only" in both["evidence"]


def test_a_row_that_fast_mode_answered_needs_a_certificate_whose_play_fast_mode_answered() -> None:
    told = fast_certificate.unshown_reason({"fast": fast(answered="exact")}, "fast and exact")
    assert told == "fast mode answered this row, but exact mode answered the gate of fast mode"
    for certificate, precision in (({"fast": fast(answered="exact")}, "exact"), ({"fast": fast()}, "fast"), ({}, None)):
        assert fast_certificate.unshown_reason(certificate, precision) is None


def test_the_margin_is_the_campaigns_and_stands_in_the_evidence() -> None:
    lost = fast(losses=4, gains=1)
    assert fast_certificate.judgement(lost | {"margin": 0.15}, counts())["proven"]  # type: ignore[typeddict-item]
    refused = fast_certificate.judgement(lost | {"margin": 0.025}, counts())  # type: ignore[typeddict-item]
    assert not refused["proven"] and "worse, more than 2.5% (Tango" in refused["evidence"]
    assert (fast_certificate.margin({}), fast_certificate.margin({"fast_margin": 0.02})) == (0.05, 0.02)


@pytest.mark.parametrize(
    ("changes", "count_changes", "told"),
    [
        ({"exact_proven": False}, {}, "the exact mode is not proven: 9 of 9"),
        ({}, {"same_begin": 97}, "3 of 100 episodes do not begin alike"),
        ({"mean": 0.02}, {}, "first chunks: actions differ by 2.11% of their size in the mean, more than 1.56%"),
        ({"largest": 0.07}, {}, "first chunks: an action differs by 7.37%"),
        ({"mean": 0.003, "type": "float32"}, {}, "more than 0.20%"),
        ({"losses": 6, "flips_alone": 6}, {}, "6 losses and 0 gains, exact McNemar p = 0.016"),
        (
            {"gains": 8, "losses": 7, "noise_flips": 1, "noise_alone": 1, "flips_alone": 15},
            {},
            "15 flips are above the noise floor of 1, p = 0.00026",
        ),
        ({"losses": 4, "gains": 1}, {}, "more than 5% (Tango score, one-sided, 4 losses, 1 gains)"),
    ],
)
def test_each_number_that_speaks_against_fast_mode_refuses_it(
    changes: dict[str, Any], count_changes: dict[str, Any], told: str
) -> None:
    verdict = fast_certificate.judgement(fast(**changes), counts(**count_changes))
    assert not verdict["proven"] and told in verdict["evidence"]
