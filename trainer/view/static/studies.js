// Studies: all of them, and one with its history, parallel coordinates and trials, live.
"use strict";

const Studies = (() => {
  const FIRST_ROWS = 200;
  const byId = (id) => document.getElementById(id);
  let page = null;
  let open = null;
  let study = null;
  let stamp = "";
  let marked = null;
  let sort = { name: "number", down: false };
  let shownRows = FIRST_ROWS;
  let plot = null;
  let plotKey = "";
  let listed = "";
  const resizes = new ResizeObserver(() => resize());

  const title = (id) => id.replace(/^study-/, "");
  const counted = (counts) => Object.entries(counts).map(([state, count]) => `${count} ${state.toLowerCase()}`).join(", ") || "none yet";
  const took = (trial) => (trial.ended ? trial.ended - trial.started : null);

  async function look() {
    const answer = await page.get("api/studies");
    if (!answer) return;
    const known = answer.some((each) => each.study === open);
    if (!known) open = answer.length ? answer[0].study : null;
    drawList(answer);
    byId("no-studies").hidden = answer.length > 0;
    byId("study").hidden = !open;
    if (open) await drawOpen();
  }

  function drawList(answer) {
    const key = JSON.stringify([answer, open]);
    if (key === listed) return;
    listed = key;
    const heads = ["Study", "Status", "Script", "Objective", "Best", "Trials", "Created", "Took", "Model"];
    const head = page.make("tr");
    for (const text of heads) {
      const cell = page.make("th", text);
      cell.scope = "col";
      head.append(cell);
    }
    byId("studies").tHead.replaceChildren(head);
    const focused = document.activeElement?.dataset?.study;
    byId("studies").tBodies[0].replaceChildren(...answer.map((each) => {
      const line = page.make("tr", undefined, each.study === open ? "shown" : "");
      const button = page.make("button", title(each.study), "open");
      button.dataset.study = each.study;
      if (each.study === open) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => choose(each.study));
      const first = page.make("td");
      first.append(button);
      line.append(first, page.make("td", each.status, each.status));
      if (each.status === "Damaged") {
        const why = page.make("td", each.reason);
        why.colSpan = heads.length - 2;
        line.append(why);
        return line;
      }
      const best = each.best ? `${page.number(each.best.value)} (trial ${each.best.number})` : "";
      const cells = [each.script, `${each.goal} ${each.metric}`, best, `${Object.values(each.counts).reduce((a, b) => a + b, 0)} of ${each.trials_in_all}`, page.moment(each.created), each.seconds ? page.span(each.seconds) : "", each.model || ""];
      line.append(...cells.map((text) => page.make("td", text)));
      return line;
    }));
    if (focused) document.querySelector(`[data-study="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  async function choose(id) {
    open = id;
    stamp = "";
    marked = null;
    shownRows = FIRST_ROWS;
    sort = { name: "number", down: false };
    history.replaceState(null, "", `#study=${id}`);
    await look();
  }

  async function drawOpen() {
    const asked = open;
    const answer = await page.get(`api/study/${asked}?since=${stamp}`);
    if (!answer || asked !== open) {
      if (!answer) byId("study").hidden = true;
      return;
    }
    if (!answer.trials) return;
    study = answer;
    stamp = answer.stamp;
    draw();
  }

  function draw() {
    if (!study || study.study !== open) return;
    byId("study").hidden = false;
    byId("study-title").textContent = `Study ${title(open)}`;
    const facts = [
      ["Status", study.status], ["Reason", study.reason], ["Trials", `${study.trials.length} of ${study.trials_in_all}: ${counted(study.counts)}`],
      ["Objective", `${study.goal} ${study.metric}`], ["Best", study.best && `${page.number(study.best.value)}, trial ${study.best.number}`],
      ["Search", study.search], ["Space", study.space.map((each) => each.text).join("; ")], ["Backend", study.backend], ["Model", study.model],
    ];
    byId("study-facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [page.make("dt", name), page.make("dd", value)]));
    drawHistory();
    drawParallel();
    drawTrials();
  }

  // What the best completed trial up to each had.
  function bestSoFar(trials) {
    let best = null;
    return trials.map((trial) => {
      if (trial.state === "Completed" && trial.value !== null && (best === null || (study.goal === "max" ? trial.value > best : trial.value < best))) best = trial.value;
      return best;
    });
  }

  function drawHistory() {
    const trials = study.trials;
    const box = byId("history");
    byId("history-box").hidden = !trials.some((trial) => trial.value !== null);
    if (byId("history-box").hidden) return;
    const of = (...states) => trials.map((trial) => (states.includes(trial.state) ? trial.value : null));
    const data = [trials.map((trial) => trial.number), of("Completed"), of("Stopped"), of("Running", "Failed", "Canceled", "Interrupted"), bestSoFar(trials)];
    const best = study.best ? `best ${page.number(study.best.value)}, trial ${study.best.number}` : "no best yet";
    box.setAttribute("aria-label", `${study.metric} of ${trials.length} trials: ${counted(study.counts)}; ${best}. The table of trials has every value.`);
    const key = JSON.stringify([open, study.metric, Curves.dark.matches]);
    if (plot && key === plotKey) {
      plot.setData(data);
      return;
    }
    plot?.destroy();
    plotKey = key;
    plot = new uPlot(options(box), data, box);
    resizes.observe(box);
  }

  function options(box) {
    const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, font: "12px system-ui" };
    const value = (_, shown) => page.number(shown);
    // Told apart by their form, too: filled, hollow, small.
    const points = (label, colour, size, fill) => ({ label, stroke: css(colour), paths: () => null, points: { show: true, size, width: 1.5, stroke: css(colour), fill: fill ? css(colour) : css("--panel") }, value });
    return {
      width: Math.max(200, box.clientWidth),
      height: 240,
      cursor: { drag: { x: false, y: false } },
      legend: { show: true },
      scales: { x: { time: false, range: (_, low, high) => [Math.min(low, 0) - 0.5, high + 0.5] } },
      axes: [
        { ...axis, label: "trial", size: 30, labelSize: 18, labelGap: 0, labelFont: "12px system-ui", incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : String(Number(tick.toPrecision(4))))) },
      ],
      series: [
        { label: "trial", value: (_, shown) => (shown === null ? "-" : String(shown)) },
        points("completed", "--accent", 7, true),
        points("stopped", "--warn", 8, false),
        points("other", "--soft", 5, false),
        { label: "best so far", stroke: css("--good"), width: 1.75, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false }, value },
      ],
    };
  }

  function drawParallel() {
    const done = study.trials.filter((trial) => trial.value !== null).sort((a, b) => (study.goal === "max" ? 1 : -1) * (a.value - b.value));
    const rank = new Map(done.map((trial, index) => [trial.run_id, index / Math.max(1, done.length - 1)]));
    const rows = done.map((trial) => ({ run_id: trial.run_id, name: `trial ${trial.number}: ${page.number(trial.value)}`, parameters: trial.values, best: { [study.metric]: trial.value } }));
    const shown = new Set([marked, study.best?.run_id].filter(Boolean));
    const names = study.space.map((each) => each.name);
    const colour = (run) => `var(${run === marked ? "--warn" : "--good"})`;
    // Better trials are drawn more strongly.
    const look = { axis: study.metric, what: "trials", strength: (row) => 0.12 + 0.6 * rank.get(row.run_id) ** 2 };
    byId("study-parallel-box").hidden = !Parallel.draw(byId("study-parallel"), rows, names, study.metric, shown, colour, look);
  }

  function columns() {
    const found = [
      { name: "number", title: "Trial", of: (trial) => trial.number, number: true },
      { name: "state", title: "State", of: (trial) => trial.state },
      { name: "value", title: study.metric, of: (trial) => trial.value, number: true, down: study.goal === "max" },
    ];
    for (const each of study.space) found.push({ name: `value:${each.name}`, title: each.name, of: (trial) => trial.values[each.name], number: true });
    found.push(
      { name: "took", title: "Took", of: took, number: true },
      { name: "why", title: "Why", of: (trial) => trial.why },
      { name: "run", title: "Run", of: (trial) => trial.run_id },
    );
    return found;
  }

  function text(column, trial) {
    const value = column.of(trial) ?? null;
    if (value === null) return "";
    if (column.name === "took") return page.span(value);
    if (column.name === "number") return String(value);
    return typeof value === "number" ? (column.name === "value" ? page.number(value) : String(Number(value.toPrecision(4)))) : String(value);
  }

  function drawTrials() {
    const shown = columns();
    const by = shown.find((column) => column.name === sort.name) || shown[0];
    const trials = [...study.trials].sort((a, b) => {
      const [x, y] = [by.of(a) ?? null, by.of(b) ?? null];
      if (x === null || y === null) return (x === null) - (y === null);
      return Query.compare(x, y) * (sort.down ? -1 : 1);
    });
    const focused = document.activeElement?.dataset?.key;
    const head = page.make("tr");
    for (const column of shown) {
      const cell = page.make("th", undefined, column.number ? "number" : "");
      cell.scope = "col";
      if (column === by) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      const button = page.make("button", column.title);
      button.dataset.key = `trials-${column.name}`;
      button.addEventListener("click", () => {
        sort = { name: column.name, down: column === by ? !sort.down : Boolean(column.down) };
        drawTrials();
      });
      cell.append(button);
      head.append(cell);
    }
    byId("trials").tHead.replaceChildren(head);
    byId("trials").tBodies[0].replaceChildren(...trials.slice(0, shownRows).map((trial) => drawTrial(trial, shown)));
    byId("trials-more").hidden = trials.length <= shownRows;
    if (focused) byId("trials").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function drawTrial(trial, shown) {
    const line = page.make("tr", undefined, trial.run_id === study.best?.run_id ? "shown" : "");
    for (const column of shown) {
      const cell = page.make("td", undefined, column.number ? "number" : "");
      if (column.name === "run") {
        const button = page.make("button", trial.run_id, "open");
        button.dataset.key = `trial-${trial.run_id}`;
        button.addEventListener("click", () => page.show(trial.run_id));
        cell.append(button);
      } else if (column.name === "state") {
        cell.append(page.make("span", trial.state, trial.state));
        if (trial.run_id === study.best?.run_id) cell.append(page.make("small", " best"));
      } else {
        cell.textContent = text(column, trial);
        if (column.name === "why") cell.className = "why";
      }
      line.append(cell);
    }
    const mark = (on) => () => {
      const now = on ? trial.run_id : null;
      if (now !== marked) {
        marked = now;
        drawParallel();
      }
    };
    line.addEventListener("mouseenter", mark(true));
    line.addEventListener("mouseleave", mark(false));
    line.addEventListener("focusin", mark(true));
    line.addEventListener("focusout", mark(false));
    return line;
  }

  function resize() {
    const box = byId("history");
    const width = Math.max(200, box.clientWidth);
    if (plot && plot.width !== width) plot.setSize({ width, height: 240 });
  }

  function start(of) {
    page = of;
    open = location.hash.match(/study=([\w-]+)/)?.[1] || null;
    byId("trials-more").addEventListener("click", () => { shownRows *= 5; drawTrials(); });
    byId("study-curves").addEventListener("click", () => page.compare(study.trials.map((trial) => trial.run_id)));
    Curves.dark.addEventListener("change", draw);
    return open !== null;
  }

  return { start, look, address: () => (open ? `#study=${open}` : "#") };
})();
