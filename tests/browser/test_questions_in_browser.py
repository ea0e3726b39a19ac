"""What somebody asks report.html who knows neither code nor docs, over four GPUs: each answer is plain."""

import re
from collections.abc import Callable

import pytest
from browser_pages import Opened, serious
from campaigns import Made
from playwright.sync_api import Page, expect

CARDS = "#wall .card"


@pytest.fixture
def page(opened: Callable[..., Opened], gpus: Made) -> Page:
    return opened().go(gpus.layout.report_page)


def test_was_it_accepted_and_why_stands_in_the_first_view(page: Page) -> None:
    verdict = page.locator(".verdict")
    expect(verdict.locator("h2")).to_have_text("not accepted")
    expect(verdict.locator("li")).to_have_text(
        [
            "object_t5_b1_e5 (libero_object, task 5): the success rate is 20.0%, below the threshold of 50%",
            re.compile(r"^broken_b1_e4 \(libero_goal, task 0\): exit code 1: RuntimeError: CUDA error"),
        ]
    )
    box = verdict.bounding_box()
    assert box and box["y"] + box["height"] < 900
    verdict.get_by_role("link", name="object_t5_b1_e5").click()
    expect(page.locator("#failures")).to_be_in_viewport()


def test_the_worst_task_is_named_before_the_table_and_one_click_shows_its_failures(page: Page) -> None:
    lead = page.locator("[aria-labelledby=tasks] .lead")
    expect(lead).to_contain_text("Worst: task 5 of libero_object, pick up the tomato sauce and place it in the basket")
    expect(lead).to_contain_text("1 of 5 succeeded (20%)")
    lead.get_by_role("button").click()
    expect(page.locator(CARDS)).to_have_count(4)
    expect(page.locator(f"{CARDS}.failure", has_text="task 5, episode")).to_have_count(4)


def test_a_task_without_a_result_is_named_beside_the_rates_with_the_reason(page: Page) -> None:
    rates = page.locator("section[aria-labelledby=tasks]")
    expect(rates).to_contain_text("Without a result: task 0 of libero_goal (broken_b1_e4: crash).")


def test_a_row_that_ran_and_is_not_accepted_is_no_pass_where_it_ran(page: Page) -> None:
    lane = page.get_by_role("region", name="GPU 2", exact=True)
    runs = lane.get_by_role("listitem")
    expect(runs.filter(has=page.get_by_role("link", name="object_t5_b1_e5"))).to_contain_text(
        "not accepted (below_threshold)"
    )
    expect(runs.filter(has=page.get_by_role("link", name="object_t7_b1_e5"))).to_contain_text(": pass")


def test_a_button_shows_as_many_episodes_as_the_task_counts(page: Page) -> None:
    page.get_by_label("Show all episodes of libero_object task 0").click()
    expect(page.locator(CARDS)).to_have_count(5)  # the baseline row has played the task too
    expect(page.locator("[name=row] option:checked")).to_have_text("those counted by task")


def test_what_ran_on_gpu_2_is_readable_at_once(page: Page) -> None:
    lane = page.get_by_role("region", name="GPU 2", exact=True)
    expect(lane.locator("h3")).to_have_text("GPU 2")
    names = [text.partition(":")[0] for text in lane.locator("li").all_inner_texts()]
    assert {"object_t5_b1_e5", "object_t7_b1_e5"} <= set(names)
    drawn = [title.partition(":")[0] for title in lane.locator("svg title").all_text_contents()]
    assert drawn == names
    expect(lane).to_contain_text(f"{len(names)} runs, busy")
    waited = lane.locator("li", has_text="of waiting for").last
    expect(waited).to_contain_text(re.compile(r"for (GPU 2, where \w+ ran|the baseline, baseline_b1_e2, which ran)"))


def test_how_to_replay_an_episode_is_told_where_it_is_opened(page: Page) -> None:
    expect(page.locator("[aria-labelledby=episodes] .hint")).to_contain_text("gives the command that replays it")
    page.select_option("[name=task]", "5")
    page.locator(CARDS, has_text="episode 3").click()
    expect(page.locator("#player-title")).to_have_text("libero_object task 5, episode 3")
    page.get_by_role("button", name="Replay command").click()
    expect(page.locator("#replay")).to_be_in_viewport()
    command = "tracka replay object_t5_b1_e5 --task 5 --episode 3 --root"
    expect(page.locator("#replay")).to_contain_text(command)


def test_axe_finds_nothing_serious_on_it(page: Page) -> None:
    assert serious(page) == []
