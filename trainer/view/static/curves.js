// The charts: one for each metric of the chosen runs, all along the same axis.
"use strict";

const Curves = (() => {
  const LIGHT = ["#0072b2", "#c24e00", "#00795a", "#a23c8c", "#946200", "#2e86c1", "#7d1f4d", "#117733", "#5f5f5f", "#5b4bc4"];
  const DARK = ["#56b4e9", "#ff9a57", "#35c99a", "#e58fd0", "#f0c24b", "#9fd0ff", "#ff9db0", "#7bd88f", "#b5b5b5", "#b3a8ff"];
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const reduce = (values, factor) => {
    // Exponential smoothing with the bias of the first values taken out (Kingma and Ba, 2015, section 3).
    let mean = 0, weight = 0;
    return values.map((value) => {
      if (value === null) return null;
      mean = factor * mean + (1 - factor) * value;
      weight = factor * weight + (1 - factor);
      return mean / weight;
    });
  };

  const charts = new Map();
  const slots = new Map();
  // Whatever makes a chart's place wider or narrower: the window, or another chart beside it.
  const resizes = new ResizeObserver(() => resize());
  let range = null;
  let busy = false;
  let again = false;

  function colour(run) {
    if (!slots.has(run)) {
      const used = new Set(slots.values());
      let slot = 0;
      while (used.has(slot)) slot += 1;
      slots.set(run, slot);
    }
    const palette = dark.matches ? DARK : LIGHT;
    return palette[slots.get(run) % palette.length];
  }

  function dash(run) {
    return DASHES[Math.floor((slots.get(run) || 0) / LIGHT.length) % DASHES.length];
  }

  function release(run) {
    slots.delete(run);
  }

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // Fetches and draws; a call while one is under way makes it start again when it has ended.
  async function draw(page) {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await drawOnce(page);
      } while (again);
    } finally {
      busy = false;
    }
  }

  async function drawOnce(page) {
    const runs = [...page.chosen];
    const metrics = page.metricsOf(runs);
    for (const [name, chart] of charts) {
      if (!metrics.includes(name)) {
        resizes.unobserve(chart.box);
        chart.plot?.destroy();
        chart.figure.remove();
        charts.delete(name);
      }
    }
    document.getElementById("hint").hidden = metrics.length > 0;
    document.getElementById("whole").hidden = range === null;
    for (const name of metrics) {
      const query = new URLSearchParams({
        runs: runs.join(","), metric: name, x: page.axis, points: String(Math.max(300, Math.min(1600, Math.round(24000 / runs.length)))),
      });
      if (range) {
        query.set("from", range[0]);
        query.set("to", range[1]);
      }
      const answer = await page.get(`api/curves?${query}`);
      if (!answer) return;
      show(page, name, runs.filter((run) => answer.series[run]), answer);
      if (answer.pending.length) again = true;
      // Another choice has been made meanwhile.
      if (runs.length !== page.chosen.size || runs.some((run) => !page.chosen.has(run))) {
        again = true;
        return;
      }
    }
  }

  function show(page, name, runs, answer) {
    const place = document.getElementById("charts");
    let chart = charts.get(name);
    if (!chart) {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const box = document.createElement("div");
      box.setAttribute("role", "img");
      figure.append(caption, box);
      place.append(figure);
      chart = { figure, caption, box, plot: null, key: "" };
      resizes.observe(box);
      charts.set(name, chart);
    }
    const smooth = page.smooth;
    const data = [answer.x, ...runs.map((run) => (smooth > 0 ? reduce(answer.series[run], smooth) : answer.series[run]))];
    chart.caption.replaceChildren(name, " ");
    const note = document.createElement("span");
    note.textContent = answer.pending.length ? `reading, ${answer.pending.length} to go` : "";
    chart.caption.append(note);
    chart.box.setAttribute("aria-label", `${name}: ` + runs.slice(0, 12).map((run) => {
      const row = page.rows.get(run);
      return `${page.label(run)} last ${page.number(row.metrics[name])}, best ${page.number(row.best[name])}`;
    }).join("; "));
    const key = JSON.stringify([runs, page.axis, page.log, dark.matches, runs.map(page.label)]);
    if (chart.plot && chart.key === key) {
      chart.plot.setData(data);
      return;
    }
    chart.plot?.destroy();
    chart.key = key;
    chart.plot = new uPlot(options(page, chart, runs), data, chart.box);
  }

  function options(page, chart, runs) {
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, font: "12px system-ui" };
    const few = runs.length <= 8;
    return {
      width: Math.max(200, chart.box.clientWidth),
      height: 230,
      cursor: { sync: { key: "all" }, drag: { x: true, y: false, setScale: false }, focus: { prox: 24 } },
      focus: { alpha: 0.25 },
      legend: { show: few },
      scales: { x: { time: false }, y: { distr: page.log ? 3 : 1 } },
      axes: [
        { ...axis, label: page.axis === "time" ? "seconds" : "epoch", size: 30, labelSize: 18, labelGap: 0, labelFont: "12px system-ui" },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : String(Number(tick.toPrecision(4))))) },
      ],
      series: [
        { label: page.axis === "time" ? "seconds" : "epoch", value: (_, value) => (value === null ? "-" : String(Number(value.toPrecision(6)))) },
        ...runs.map((run) => ({
          label: page.label(run),
          stroke: colour(run),
          dash: dash(run),
          width: few ? 1.75 : 1.1,
          spanGaps: true,
          points: { show: (plot) => plot.data[0].length <= 40, size: 5 },
          // Away from the cursor the last one.
          value: (plot, value, series, index) => page.number(index === null || index === undefined ? plot.data[series].findLast((v) => v !== null) : value),
        })),
      ],
      hooks: {
        setSelect: [(plot) => {
          if (plot.select.width < 4) return;
          range = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          draw(page);
        }],
      },
    };
  }

  function whole(page) {
    range = null;
    draw(page);
  }

  function resize() {
    for (const chart of charts.values()) {
      const width = Math.max(200, chart.box.clientWidth);
      if (chart.plot && chart.plot.width !== width) chart.plot.setSize({ width, height: 230 });
    }
  }

  return { draw, whole, resize, colour, release, dark };
})();
