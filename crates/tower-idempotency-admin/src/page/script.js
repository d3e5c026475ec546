// Renews the numbers of the page and draws them, and selects all rows at once. The page works without it.
"use strict";

(() => {
  // ---- All rows of a table at once -------------------------------------------------------------------------------
  const all = document.getElementById("select-all");
  if (all) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.addEventListener("change", () => {
      for (const row of document.querySelectorAll("input[name=row]")) row.checked = box.checked;
    });
    label.append(box, " Select all of this page");
    all.before(label);
  }

  // ---- The live view ---------------------------------------------------------------------------------------------
  if (!document.getElementById("live-view")) return;
  const EVERY = 2000;
  const KEPT = 150;
  const base = location.pathname.replace(/\/+$/, "");
  const button = document.getElementById("pause");
  const status = document.getElementById("live-status");
  const graphs = new Map();
  let last = null;
  let timer = null;
  let isPaused = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let hasFailed = false;

  for (const part of document.querySelectorAll(".script-only")) part.hidden = false;

  const part = (row, name) => row.querySelector(`[data-part=${name}]`);
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const say = (text) => write(status, text);

  const span = (seconds) =>
    seconds < 120 ? `${Math.floor(seconds)} s`
    : seconds < 7200 ? `${Math.floor(seconds / 60)} min`
    : seconds < 172800 ? `${Math.floor(seconds / 3600)} h`
    : `${Math.floor(seconds / 86400)} days`;

  const shortSpan = (micros) =>
    micros < 1000 ? `${micros} µs`
    : micros < 10000 ? `${(micros / 1000).toFixed(1)} ms`
    : micros < 1000000 ? `${Math.floor(micros / 1000)} ms`
    : `${(micros / 1000000).toFixed(1)} s`;

  const SVG = "http://www.w3.org/2000/svg";

  // Adds a value to a graph; `null` is a gap.
  const draw = (row, name, value, words) => {
    const place = part(row, "graph");
    const values = graphs.get(name) || [];
    values.push(value);
    if (values.length > KEPT) values.shift();
    graphs.set(name, values);
    const most = Math.max(...values.map((value) => value ?? 0));
    let svg = place.firstElementChild;
    if (!svg) {
      svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("role", "img");
      place.append(svg);
    }
    svg.setAttribute("aria-label", most > 0 ? `at most ${words(most)}` : "nothing");
    const lines = [];
    let line = [];
    values.forEach((value, at) => {
      if (value === null) {
        lines.push(line);
        line = [];
      } else {
        const y = most > 0 ? 19 - (18 * value) / most : 19;
        line.push(`${KEPT - values.length + at},${y.toFixed(2)}`);
      }
    });
    lines.push(line);
    const ground = document.createElementNS(SVG, "line");
    for (const [name, value] of [["x1", 0], ["x2", KEPT - 1], ["y1", 19.5], ["y2", 19.5]]) ground.setAttribute(name, value);
    svg.replaceChildren(ground, ...lines.filter((line) => line.length > 0).map((line) => {
      // A line of one point is not seen.
      const [x, y] = line[0].split(",");
      const points = line.length > 1 ? line : [`${x - 1},${y}`, line[0]];
      const drawn = document.createElementNS(SVG, "polyline");
      drawn.setAttribute("points", points.join(" "));
      return drawn;
    }));
  };

  const quantile = (counts, bounds, share) => {
    const all = counts.reduce((sum, count) => sum + count, 0);
    if (all === 0) return null;
    const wanted = Math.max(1, Math.ceil(all * share));
    let seen = 0;
    for (let at = 0; at < counts.length; at += 1) {
      seen += counts[at];
      if (seen >= wanted) return bounds[at] ?? null;
    }
    return null;
  };

  const perSecond = (rate) => (rate === 0 ? "0" : rate < 10 ? rate.toFixed(1) : String(Math.round(rate)));

  const show = (numbers, at) => {
    write(document.getElementById("health"), numbers.store.health);
    document.getElementById("health").classList.toggle("bad", !numbers.store.is_good);
    for (const row of document.querySelectorAll("[data-summary]")) {
      const summary = numbers[row.dataset.summary];
      const oldest = summary.oldest === null ? "–"
        : span(Math.max(0, (Date.parse(numbers.now) - Date.parse(summary.oldest)) / 1000));
      const count = part(row, "count");
      write(count, summary.has_more ? `${summary.count} or more` : String(summary.count));
      count.classList.toggle("bad", summary.count > 0 && row.dataset.summary !== "running");
      write(part(row, "oldest"), oldest);
    }
    // The counts of another process, or of this one before a restart, are no earlier ones of these.
    const before = last && last.numbers.instance === numbers.instance ? last : null;
    const seconds = before ? (at - before.at) / 1000 : 0;
    for (const row of document.querySelectorAll("[data-count]")) {
      const name = row.dataset.count;
      const total = Number(numbers.counts[name]);
      const rate = before ? Math.max(0, total - Number(before.numbers.counts[name])) / seconds : null;
      write(part(row, "total"), numbers.counts[name]);
      write(part(row, "rate"), rate === null ? "–" : perSecond(rate));
      draw(row, name, rate, (most) => `${perSecond(most)} per second`);
    }
    for (const row of document.querySelectorAll("[data-time]")) {
      const name = row.dataset.time;
      const bounds = numbers.latencies.bounds_micros;
      const counts = numbers.latencies[name].map(Number);
      const earlier = before ? before.numbers.latencies[name].map(Number) : null;
      const fresh = earlier ? counts.map((count, at) => Math.max(0, count - earlier[at])) : counts;
      const [median, high] = [0.5, 0.99].map((share) => quantile(fresh, bounds, share));
      if (before && median !== null) {
        write(part(row, "median"), shortSpan(median));
        write(part(row, "high"), high === null ? "–" : shortSpan(high));
      }
      draw(row, `time ${name}`, before ? high : null, shortSpan);
    }
    const of = document.getElementById("times-of");
    if (of && before) write(of, "of the last that were measured");
    const was = last && last.numbers.interrupted.count;
    last = { numbers, at };
    return was !== null && was !== numbers.interrupted.count ? numbers.interrupted.count : null;
  };

  const renew = async () => {
    timer = null;
    try {
      const response = await fetch(`${base}/api/stats`, { credentials: "same-origin", redirect: "error" });
      if (!response.ok) throw new Error(String(response.status));
      const interrupted = show(await response.json(), performance.now());
      if (interrupted !== null) say(`Interrupted operations: ${interrupted} now. The list above is of when the page was loaded.`);
      else if (hasFailed) say("The server answers again.");
      hasFailed = false;
    } catch {
      // It may be away for a moment, or have signed the operator out.
      if (!hasFailed) say("The numbers can't be read: the server does not answer, or the browser has blocked the request. Those shown are old.");
      hasFailed = true;
    }
    plan(EVERY);
  };

  const plan = (after) => {
    if (timer === null && !isPaused && !document.hidden) timer = setTimeout(renew, after);
  };
  const stop = () => {
    clearTimeout(timer);
    timer = null;
  };

  const name = () => write(button, isPaused ? "Go on" : "Pause");
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    name();
    say(isPaused ? "Paused." : "Live.");
    if (isPaused) stop();
    else plan(0);
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : plan(0)));
  name();
  if (isPaused) say("Paused, because your system asks for less motion.");
  plan(0);
})();
