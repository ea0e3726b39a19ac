"use strict";
// Filters, the wall of episodes and the player of report.html. All text from artifacts is set as text, never as markup.
const tracka = (() => {
  const place = (id) => document.getElementById(id);
  const source = place("data");
  const data = source ? JSON.parse(source.textContent) : null;
  const AT_ONCE = 60;

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value; else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  // ---- theme

  function remembered(key, value) {
    try {
      if (value !== undefined) localStorage.setItem(key, value);
      return localStorage.getItem(key);
    } catch { return value ?? null; }
  }

  const THEMES = ["auto", "light", "dark"];
  let theme = "auto";
  function useTheme(name) {
    theme = THEMES.includes(name) ? name : "auto";
    if (theme === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
    place("theme").textContent = `Theme: ${theme}`;
    if (player) player.recolour();
  }
  let player = null;
  useTheme(remembered("tracka-theme"));
  place("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remembered("tracka-theme", next);
    useTheme(next);
  });

  // ---- tables that sort, and commands that can be copied

  const sortValue = (cell) => cell.dataset.value ?? cell.textContent.trim();
  function compareCells(one, other) {
    const numbers = [Number(one), Number(other)];
    return numbers.some(Number.isNaN) ? one.localeCompare(other, undefined, { numeric: true }) : numbers[0] - numbers[1];
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th:not([data-plain])").forEach((head) => {
      const column = [...head.parentElement.children].indexOf(head);
      const button = element("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("thead th").forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [sortValue(row.cells[column]), row]);
        rows.sort((one, other) => compareCells(one[0], other[0]) * (down ? -1 : 1));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); };
    const select = () => getSelection().selectAllChildren(code);
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select); else select();
  });

  const loaded = new Map(Object.entries(data?.traces ?? {}));
  const api = { trace(name, content) { loaded.set(name, content); } };
  if (!data) return api;

  // ---- episodes

  const change = (episode) => !episode.partner || episode.partner.success === episode.success ? "" : episode.success ? "gain" : "loss";
  const words = (episode) => data.words[episode.suite]?.[episode.task] ?? "";
  const outcome = (success) => success ? "success" : "failure";
  const described = (episode) => `${episode.suite} task ${episode.task}, episode ${episode.number}`;

  function picture(poster, missing) {
    return element("span", { className: "picture" }, poster ? element("img", { src: poster, alt: "", loading: "lazy", decoding: "async" }) : missing);
  }

  function card(episode, list, both) {
    const partner = both ? episode.partner : null;
    const facts = [`init state ${episode.initState}`, `seed ${episode.seed}`];
    if (episode.steps !== null) facts.unshift(`${episode.steps} steps`);
    if (episode.replayed) facts.push("filmed by replay");
    const pictures = [picture(episode.poster, "no video")];
    if (partner) pictures.unshift(picture(partner.poster, "no video"));
    const said = partner ? `A: ${outcome(partner.success)}, B: ${outcome(episode.success)} (${change(episode)})` : outcome(episode.success);
    const button = element("button", { type: "button", className: `card ${outcome(episode.success)}` },
      element("span", { className: "pictures" }, ...pictures),
      element("span", { className: "outcome" }, element("span", { className: "mark", ariaHidden: "true" }), said),
      element("span", { className: "line strong", textContent: `task ${episode.task}, episode ${episode.number}`, title: episode.row }),
      element("span", { className: "line", textContent: words(episode) || episode.suite, title: words(episode) }),
      element("span", { className: "line", textContent: facts.join(", ") }));
    button.addEventListener("click", () => player.open(episode, list()));
    return element("li", {}, button);
  }

  // A list of cards that grows by a button, so that the page stays quick and its end can be reached.
  function gallery(wall, more, both) {
    let shown = [], drawn = 0;
    function draw() {
      const next = shown.slice(drawn, drawn + AT_ONCE);
      const fresh = next.map((episode) => card(episode, () => shown, both));
      wall.append(...fresh);
      drawn += next.length;
      more.hidden = drawn >= shown.length;
      more.textContent = `Show ${Math.min(AT_ONCE, shown.length - drawn)} more of ${shown.length}`;
      return fresh[0];
    }
    more.addEventListener("click", () => draw()?.querySelector("button").focus());
    return (episodes) => { shown = episodes; drawn = 0; wall.replaceChildren(); draw(); };
  }

  // ---- filters

  const form = place("filters");
  const first = place("failures-first");
  const fill = (name, values, label = (value) => value) => {
    const select = form.elements[name];
    for (const value of values) select.append(element("option", { value, textContent: label(value) }));
  };
  const unique = (values) => [...new Set(values)].sort((one, other) => compareCells(String(one), String(other)));
  const rows = data.rows;
  function rowStatus(row) {
    if (row.reason) return row.status === "pass" ? "not accepted" : row.status;
    return row.status === "pass" ? "accepted" : "stopped early";
  }
  fill("suite", unique(Object.values(rows).map((row) => row.suite)));
  fill("task", unique(Object.values(rows).flatMap((row) => row.tasks)));
  const COUNTED = "+"; // the rows whose episodes the rates of the tasks count; no run id is called so
  if (Object.values(rows).some((row) => row.counted)) fill("row", [COUNTED], () => "those counted by task");
  fill("row", Object.keys(rows));
  fill("status", unique(Object.values(rows).map(rowStatus)));
  fill("reason", unique(Object.values(rows).map((row) => row.reason).filter(Boolean)));

  const chosen = (name) => form.elements[name]?.value ?? "";
  const rowFits = (id, row) => (!chosen("row") || chosen("row") === id || (chosen("row") === COUNTED && row.counted)) && (!chosen("suite") || chosen("suite") === row.suite)
    && (!chosen("status") || chosen("status") === rowStatus(row)) && (!chosen("reason") || chosen("reason") === row.reason)
    && (!chosen("task") || row.tasks.includes(Number(chosen("task"))));
  function episodeFits(episode) {
    const wanted = chosen("change"), flip = change(episode);
    return rowFits(episode.row, rows[episode.row]) && (!chosen("task") || chosen("task") === String(episode.task))
      && (!chosen("outcome") || chosen("outcome") === outcome(episode.success))
      && (!wanted || (wanted === "flipped" ? flip !== "" : flip === wanted));
  }

  const showWall = gallery(place("wall"), place("more"), false);
  function apply() {
    const fitting = data.episodes.filter(episodeFits);
    if (first.getAttribute("aria-pressed") === "true") fitting.sort((one, other) => one.success - other.success);
    showWall(fitting);
    const failures = fitting.filter((episode) => !episode.success).length;
    place("count").textContent = `${fitting.length} of ${data.episodes.length} episodes, ${failures} of them failed.`;
    let fittingRows = 0;
    for (const line of document.querySelectorAll("#matrix tbody tr")) {
      line.hidden = !rowFits(line.dataset.row, rows[line.dataset.row]);
      fittingRows += !line.hidden;
    }
    place("rows-count").textContent = `${fittingRows} of ${Object.keys(rows).length} rows.`;
  }
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => { first.setAttribute("aria-pressed", "false"); setTimeout(apply); });
  first.addEventListener("click", () => {
    first.setAttribute("aria-pressed", String(first.getAttribute("aria-pressed") !== "true"));
    apply();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show]");
    if (!button) return;
    form.reset();
    for (const name of ["suite", "task", "row", "outcome"]) form.elements[name].value = button.dataset[name] ?? "";
    setTimeout(() => { apply(); place("episodes").scrollIntoView(); form.elements.suite.focus({ preventScroll: true }); });
  });

  // ---- the player: one video, or A's and B's in step

  // Okabe and Ito's colours, with dashes for those who cannot tell them apart.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f99"];
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 2], [12, 4]];

  function numbers(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }

  player = (() => {
    const dialog = place("player"), position = place("position"), playButton = place("play");
    let list = [], current = null, videos = [], plot = null, trace = null, hidden = new Set(), known = new Set(), opener = null;

    const duration = () => Math.max(0, ...videos.map((video) => Number.isFinite(video.duration) ? video.duration : 0));
    const time = () => Math.max(0, ...videos.map((video) => video.currentTime));
    const steps = () => trace?.steps ?? current?.steps ?? 0;
    const stepSeconds = () => steps() && duration() ? duration() / steps() : 1 / 30;
    const playing = () => videos.some((video) => !video.paused && !video.ended);

    function seek(seconds) {
      const inside = Math.min(Math.max(0, seconds), duration());
      for (const video of videos) video.currentTime = Math.min(inside, Number.isFinite(video.duration) ? video.duration : inside);
      show();
    }
    function pause() { for (const video of videos) video.pause(); }
    function toggle() {
      if (playing()) { pause(); return show(); }
      if (time() >= duration() - 0.05) seek(0);
      for (const video of videos) {
        video.playbackRate = Number(place("speed").value);
        if (!video.ended || video.currentTime < video.duration) video.play().catch(() => {});
      }
    }
    // Both videos run by their own clocks: whichever is behind by more than two frames is moved on.
    function keepInStep() {
      if (videos.length < 2 || videos.some((video) => video.paused || video.seeking)) return;
      const [one, other] = videos;
      if (Math.abs(one.currentTime - other.currentTime) > 0.07) {
        const target = Math.max(one.currentTime, other.currentTime);
        const late = one.currentTime < other.currentTime ? one : other;
        late.currentTime = Math.min(target, late.duration);
      }
    }
    function show() {
      const whole = duration(), now = time();
      position.value = whole ? Math.round(1000 * now / whole) : 0;
      playButton.textContent = playing() ? "Pause" : "Play";
      const step = steps() && whole ? `, step ${Math.min(steps(), Math.round(now / stepSeconds()))} of ${steps()}` : "";
      place("clock").textContent = whole ? `${now.toFixed(1)} of ${whole.toFixed(1)} s${step}` : "";
      position.setAttribute("aria-valuetext", place("clock").textContent);
      if (plot) showNow(whole ? now : 0);
    }
    function showNow(seconds) {
      const line = place("plot").querySelector(".now"), { offsetLeft, offsetTop, clientHeight } = plot.over;
      line.style.left = `${offsetLeft + plot.valToPos(seconds, "x")}px`;
      line.style.top = `${offsetTop}px`;
      line.style.height = `${clientHeight}px`;
    }
    function tick() {
      if (!dialog.open) return;
      keepInStep();
      show();
      requestAnimationFrame(tick);
    }

    function screen(name, { success, video, poster, replayed }) {
      const title = [name, outcome(success)].filter(Boolean).join(": ") + (replayed ? " (filmed by replay)" : "");
      const caption = element("figcaption", { className: outcome(success), textContent: title });
      if (!video) return element("figure", {}, caption, element("div", { className: "empty", textContent: "This episode has no video here." }));
      const made = element("video", { src: video, muted: true, playsInline: true, preload: "auto", ariaLabel: `Video, ${title}` });
      if (poster) made.poster = poster;
      for (const event of ["loadedmetadata", "durationchange"]) made.addEventListener(event, () => { drawPlot(); show(); });
      made.addEventListener("click", toggle);
      videos.push(made);
      return element("figure", {}, caption, made);
    }

    function fact(name, value) {
      return value === null || value === undefined || value === "" ? null : element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: String(value) }));
    }

    function open(episode, episodes) {
      if (!dialog.open) opener = document.activeElement;
      pause();
      [list, current, videos, trace] = [episodes, episode, [], null];
      place("player-title").textContent = described(episode);
      place("player-words").textContent = words(episode);
      const own = screen(episode.partner ? "B" : "", episode);
      const other = episode.partner && screen("A", episode.partner);
      place("screens").replaceChildren(...[other, own].filter(Boolean));
      place("controls").hidden = !videos.length;
      const row = rows[episode.row];
      place("facts").replaceChildren(...[
        fact("row", episode.row), fact("policy", row.policy), fact("suite", episode.suite), fact("task", episode.task), fact("episode", episode.number),
        fact("init state", episode.initState), fact("seed", episode.seed), fact("reset ordinal", episode.resetOrdinal), fact("steps", episode.steps),
        fact("device", row.device), fact("engine", row.engine)].filter(Boolean));
      const replay = episode.replay ?? row.replay;
      place("replay").textContent = replay ?? "";
      place("replay").parentElement.hidden = !replay;
      place("replay-hint").textContent = episode.replay
        ? "This command plays exactly this episode again, from its recorded actions, and films it."
        : row.replay
        ? `This command runs the row again into replays/; there this is episode ${episode.number} of task ${episode.task}, at init state ${episode.initState} and seed ${episode.seed}.`
        : "The row has no command that could run again.";
      const at = list.indexOf(episode);
      place("previous").disabled = at <= 0;
      place("next").disabled = at < 0 || at >= list.length - 1;
      loadTrace(episode);
      history.replaceState(null, "", `#episode=${encodeURIComponent(episode.id)}`);
      if (!dialog.open) { dialog.showModal(); requestAnimationFrame(tick); }
      place("player-title").focus();
      show();
      if (videos.length && !matchMedia("(prefers-reduced-motion: reduce)").matches) toggle();
    }

    function move(by) {
      const next = list[list.indexOf(current) + by];
      if (next) open(next, list);
    }

    function loadTrace(episode) {
      clearPlot();
      place("no-traces").textContent = "";
      if (!episode.trace) { place("no-traces").textContent = "This episode's actions were not recorded."; return; }
      const { name, file } = episode.trace;
      const ready = () => { if (current === episode) useTrace(loaded.get(name)?.[episode.number]); };
      if (loaded.has(name)) { ready(); return; }
      const script = element("script", { src: file });
      script.addEventListener("load", ready);
      script.addEventListener("error", () => { place("no-traces").textContent = `The recorded actions could not be loaded from ${file}.`; });
      document.head.append(script);
    }
    function useTrace(content) {
      if (!content) { place("no-traces").textContent = "This episode's actions could not be read."; return; }
      trace = { names: [], steps: content.steps, series: [], scales: [] };
      for (const [part, scale] of [[content, "y"], [content.state, "state"]]) {
        if (!part) continue;
        const values = numbers(part.values), size = part.names.length;
        part.names.forEach((name, at) => {
          if (scale === "state" && !known.has(name)) hidden.add(name);  // shown where somebody asks for it
          known.add(name);
          trace.names.push(name);
          trace.scales.push(scale);
          trace.series.push(Array.from({ length: content.steps }, (_, step) => values[step * size + at]));
        });
      }
      drawChoices();
      drawPlot();
      show();
    }
    function drawChoices() {
      const choices = trace.names.map((name, at) => {
        const box = element("input", { type: "checkbox", checked: !hidden.has(name) });
        box.addEventListener("change", () => { if (box.checked) hidden.delete(name); else hidden.add(name); drawPlot(); show(); });
        const sample = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        sample.setAttribute("width", "26"); sample.setAttribute("height", "8"); sample.setAttribute("aria-hidden", "true");
        const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        for (const [key, value] of Object.entries({ x1: 0, x2: 26, y1: 4, y2: 4, stroke: COLOURS[at % COLOURS.length], "stroke-width": 2.5, "stroke-dasharray": DASHES[at % DASHES.length].join(" ") || "none" })) line.setAttribute(key, value);
        sample.append(line);
        return element("label", {}, box, sample, name);
      });
      place("series").replaceChildren(place("series").querySelector("legend"), ...choices);
    }
    function clearPlot() {
      plot?.destroy();
      plot = null;
      place("traces").hidden = true;
      place("plot").replaceChildren();
    }
    // Actions are drawn over the video's seconds, or over steps where there is no video.
    function drawPlot() {
      if (!trace) return;
      clearPlot();
      place("traces").hidden = false;
      const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
      const perStep = duration() ? duration() / trace.steps : 1;
      const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
      plot = new uPlot({
        width: place("plot").clientWidth || 600, height: 230, legend: { show: false }, cursor: { y: false, drag: { setScale: false } },
        scales: { x: { time: false } },
        axes: [{ ...axis, label: duration() ? "seconds of the video" : "steps" }, { ...axis, label: "action" },
          ...(trace.scales.includes("state") ? [{ ...axis, scale: "state", side: 1, label: "robot's state", grid: { show: false } }] : [])],
        series: [{}, ...trace.names.map((name, at) => ({ label: name, scale: trace.scales[at], show: !hidden.has(name), stroke: COLOURS[at % COLOURS.length], width: 1.8, dash: DASHES[at % DASHES.length], points: { show: false } }))],
      }, [Array.from({ length: trace.steps }, (_, step) => step * perStep), ...trace.series], place("plot"));
      place("plot").append(element("div", { className: "now" }));
      plot.over.addEventListener("click", (event) => seek(plot.posToVal(event.offsetX, "x")));
    }

    playButton.addEventListener("click", toggle);
    place("back").addEventListener("click", () => { pause(); seek(time() - stepSeconds()); });
    place("forward").addEventListener("click", () => { pause(); seek(time() + stepSeconds()); });
    place("speed").addEventListener("change", () => { for (const video of videos) video.playbackRate = Number(place("speed").value); });
    position.addEventListener("input", () => { pause(); seek(duration() * position.value / 1000); });
    place("previous").addEventListener("click", () => move(-1));
    place("next").addEventListener("click", () => move(1));
    place("close").addEventListener("click", () => dialog.close());
    place("to-replay").addEventListener("click", () => place("replay-title").focus());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => {
      pause();
      clearPlot();
      place("screens").replaceChildren();
      videos = [];
      history.replaceState(null, "", location.pathname + location.search);
      opener?.focus();
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input, select, button, a")) return;
      const keys = { " ": toggle, ArrowLeft: () => move(-1), ArrowRight: () => move(1) };
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    });
    addEventListener("resize", () => { if (plot) { drawPlot(); show(); } });
    return { open, recolour() { if (plot) { drawPlot(); show(); } } };
  })();

  if (data.compared) {
    const flips = data.episodes.filter((episode) => change(episode));
    const gains = flips.filter((episode) => change(episode) === "gain").length;
    place("flips-count").textContent = flips.length
      ? `${flips.length} flipped: ${gains} gains (B alone succeeded), ${flips.length - gains} losses (A alone succeeded). A is on the left.`
      : "No paired episode has flipped.";
    gallery(place("flips"), place("flips-more"), true)(flips);
  }
  apply();
  function openNamed() {
    const name = decodeURIComponent((location.hash.match(/^#episode=(.*)$/) ?? [])[1] ?? "");
    const episode = data.episodes.find((each) => each.id === name);
    if (episode) player.open(episode, data.episodes);
  }
  addEventListener("hashchange", openNamed);
  openNamed();
  return api;
})();
