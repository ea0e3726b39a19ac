"""report.html in Chromium: filters, videos that play, the keyboard alone, two themes, a phone, hostile text, speed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from browser_pages import Opened, serious, until
from campaigns import Made
from playwright.sync_api import Page, expect

CARDS = "#wall .card"
Open = Callable[..., Opened]


def test_the_wall_shows_every_episode_with_its_poster_and_outcome(report: Page) -> None:
    expect(report.locator(CARDS)).to_have_count(2 + 12 + 4)
    expect(report.locator("#count")).to_have_text("18 of 18 episodes, 7 of them failed.")
    report.locator(CARDS).last.scroll_into_view_if_needed()
    assert report.locator(f"{CARDS} img").count() == 18
    drawn = "images => images.every(image => !image.complete || image.naturalWidth > 0)"
    assert report.locator(f"{CARDS} img").evaluate_all(drawn)
    expect(report.locator(CARDS).first).to_contain_text("success")


def test_filters_hold_for_episodes_and_rows(report: Page) -> None:
    report.select_option("[name=task]", "1")
    expect(report.locator("#count")).to_have_text("6 of 18 episodes, 3 of them failed.")
    expect(report.locator("#matrix tbody tr:visible")).to_have_count(1)
    report.select_option("[name=outcome]", "failure")
    expect(report.locator(CARDS)).to_have_count(3)
    report.click("[type=reset]")
    report.select_option("[name=suite]", "libero_object")
    expect(report.locator(CARDS)).to_have_count(18)
    report.select_option("[name=reason]", "crash")
    expect(report.locator("#matrix tbody tr:visible")).to_have_count(1)
    expect(report.locator(CARDS)).to_have_count(0)
    report.select_option("[name=reason]", "")
    report.select_option("[name=status]", "not accepted")
    expect(report.locator(CARDS)).to_have_count(4)


def test_one_click_puts_failures_first_and_one_shows_those_of_a_task(report: Page) -> None:
    report.click("#failures-first")
    outcomes = report.locator(f"{CARDS} .outcome").all_inner_texts()
    assert outcomes == ["failure"] * 7 + ["success"] * 11
    report.click("[aria-label='3 failed: the failed episodes of libero_object task 3']")
    expect(report.locator(CARDS)).to_have_count(3)
    assert set(report.locator(f"{CARDS} .outcome").all_inner_texts()) == {"failure"}


def test_tables_sort_by_their_heads(report: Page) -> None:
    head = report.locator("section", has_text="Success by task").locator("th button", has_text="rate")
    head.click()
    rates = report.locator("[aria-labelledby=tasks] tbody tr td:nth-child(5)").all_inner_texts()
    assert rates == ["25%", "50%", "100%"]
    head.click()
    assert report.locator("th[aria-sort=descending]").count() == 1


def test_a_click_plays_the_video_beside_its_trace_and_names_the_command(report: Page) -> None:
    report.locator(CARDS, has_text="task 1, episode 4").click()
    expect(report.locator("#player-title")).to_have_text("libero_object task 1, episode 4")
    until(report, "document.querySelector('#player video').currentTime > 0.3")
    expect(report.locator("#clock")).to_contain_text("of 50")
    expect(report.locator("#plot canvas")).to_be_visible()
    assert float(report.locator("#plot .now").evaluate("line => parseFloat(line.style.left)")) > 0
    expect(report.locator("#series input")).to_have_count(7 + 9)
    expect(report.locator("#series input:checked")).to_have_count(7)  # the robot's states are shown on request
    report.check("#series label:has-text('finger 1') input")
    report.uncheck("#series label:has-text('gripper') input")
    expect(report.locator("#facts")).to_contain_text("init state")
    expect(report.locator("#replay")).to_contain_text("tracka replay two_tasks_b1_e6 --task 1 --episode 4 --root")
    expect(report.locator("#replay-hint")).to_contain_text("plays exactly this episode again")


def test_a_video_waits_for_play_where_somebody_wants_less_motion(opened: Open, new: Made) -> None:
    page = opened(reduced_motion="reduce").go(new.layout.report_page)
    page.locator(CARDS, has_text="task 1, episode 4").click()
    expect(page.locator("#clock")).to_contain_text("0.0 of")
    expect(page.locator("#play")).to_have_text("Play")
    page.click("#play")
    until(page, "document.querySelector('#player video').currentTime > 0.1")


def test_the_keyboard_alone_opens_plays_and_closes_an_episode(report: Page) -> None:
    report.locator(CARDS).nth(2).focus()
    report.keyboard.press("Enter")
    expect(report.locator("#player")).to_be_visible()
    until(report, "document.querySelector('#player video').currentTime > 0.1")
    report.keyboard.press("Space")
    report.keyboard.press("ArrowRight")
    expect(report.locator("#player-title")).to_have_text("libero_object task 1, episode 1")
    report.keyboard.press("Escape")
    expect(report.locator("#player")).to_be_hidden()
    assert report.evaluate("document.activeElement === document.querySelectorAll('#wall .card')[2]")
    report.keyboard.press("Tab")
    assert report.evaluate("document.activeElement === document.querySelectorAll('#wall .card')[3]")


def test_an_episode_has_an_address(opened: Open, new: Made) -> None:
    page = opened().go(new.layout.report_page, "#episode=two_tasks_b1_e6%2F2%2F3")
    expect(page.locator("#player-title")).to_have_text("libero_object task 2, episode 3")


def test_a_flipped_episode_plays_both_videos_in_step_after_one_click(opened: Open, compared: Path) -> None:
    seen = opened()
    page = seen.go(compared)
    expect(page.locator("#flips-count")).to_contain_text("2 flipped: 0 gains")
    page.locator("#flips .card").first.click()
    expect(page.locator("#player video")).to_have_count(2)
    expect(page.locator("#player figcaption")).to_have_text(["A: success", "B: failure"])
    until(page, "[...document.querySelectorAll('#player video')].every(video => video.currentTime > 0.5)")
    page.click("#play")
    times = page.locator("#player video").evaluate_all("videos => videos.map(video => video.currentTime)")
    assert abs(times[0] - times[1]) < 0.2
    page.locator("#position").fill("500")
    halves = page.locator("#player video").evaluate_all(
        "videos => videos.map(video => video.currentTime / video.duration)"
    )
    assert halves == [pytest.approx(0.5, abs=0.05)] * 2
    page.keyboard.press("Escape")
    page.select_option("[name=change]", "loss")
    expect(page.locator(CARDS)).to_have_count(2)
    assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_either_theme(opened: Open, compared: Path, scheme: str) -> None:
    page = opened(color_scheme=scheme).go(compared)
    assert serious(page) == []
    page.locator(CARDS).nth(3).click()
    expect(page.locator("#plot canvas")).to_be_visible()
    assert serious(page) == []


def test_the_theme_follows_the_system_until_somebody_chooses(opened: Open, new: Made) -> None:
    page = opened(color_scheme="dark").go(new.layout.report_page)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    expect(page.locator("#theme")).to_have_text("Theme: light")
    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark
    page.click("#theme")
    assert page.evaluate(ground) == dark


def test_a_phone_shows_all_without_scrolling_sideways(opened: Open, compared: Path) -> None:
    page = opened(width=390, height=800, has_touch=True).go(compared)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(CARDS).nth(3).tap()
    expect(page.locator("#player video")).to_have_count(2)
    inside = "video => { const box = video.getBoundingClientRect(); return box.left >= 0 && box.right <= innerWidth; }"
    assert all(page.locator("#player video").nth(at).evaluate(inside) for at in (0, 1))
    assert serious(page) == []


def test_hostile_text_of_a_log_does_no_harm(report: Page) -> None:
    expect(report.locator("#failures").locator("..")).to_contain_text("window.hurt=1")
    assert report.evaluate("window.hurt") is None


def test_a_single_file_plays_its_videos_away_from_the_campaign(opened: Open, new: Made, tmp_path: Path) -> None:
    target = tmp_path / "alone.html"
    assert new.call("report", str(new.root), "--single-file", "--output", str(target)).returncode == 0
    seen = opened()
    page = seen.go(target)
    page.locator(CARDS).nth(3).click()
    until(page, "document.querySelector('#player video').currentTime > 0.2")
    expect(page.locator("#plot canvas")).to_be_visible()
    assert [url for url in seen.requests if not url.startswith((target.as_uri(), "data:"))] == []
    assert seen.complaints == []


def test_an_index_leads_to_the_page_of_a_campaign(opened: Open, new: Made) -> None:
    assert new.call("report", str(new.root.parent)).returncode == 0
    page = opened().go(new.root.parent / "report.html")
    assert serious(page) == []
    page.get_by_role("link", name="campaign", exact=True).click()
    expect(page.locator("h1")).to_have_text(new.spec.name)


def test_two_thousand_episodes_are_written_in_10_s_small_and_quick(opened: Open, big: Made) -> None:
    begin = time.process_time()
    assert big.call("report", str(big.root)).returncode == 0
    assert time.process_time() - begin < 10
    assert big.layout.report_page.stat().st_size <= 5_000_000
    page = opened().go(big.layout.report_page)
    expect(page.locator("#count")).to_contain_text("2002 of 2002 episodes")
    assert min(seconds_to_load(page) for _ in range(3)) < 2
    page.select_option("[name=outcome]", "failure")
    expect(page.locator("#count")).to_contain_text("1001 of 2002")
    page.locator(CARDS).nth(9).click()
    expect(page.locator("#plot canvas")).to_be_visible()
    assert len([*(big.layout.report_files / "traces").iterdir()]) == 41  # one of each task of each row


def seconds_to_load(page: Page) -> float:
    """Returns after how many seconds the page could be used: its script has run, and every event has ended."""
    page.reload()
    timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    until(page, f"{timing} > 0")
    return float(page.evaluate(timing)) / 1000
