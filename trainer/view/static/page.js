// The page: asks once a second what has changed, and shows it.
"use strict";

(() => {
  const EVERY = 800;
  const FIRST_ROWS = 200;
  const MOST_CURVES = 100;
  const VIEWS = ["runs", "studies", "models"];
  const LIVE = new Set(["NotStarted", "Preparing", "Queued", "Running", "Finalizing"]);
  const GIVEN = new Set(["Batch size", "Epochs"]);
  const byId = (id) => document.getElementById(id);
  const make = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const page = {
    rows: new Map(), parameters: [], metrics: [], chosen: new Set(), axis: "step", smooth: 0, log: false,
    get, label, number, metricsOf, make, moment, span, show, compare,
  };
  let version = 0;
  let sort = { name: "created", down: true };
  let shownRows = FIRST_ROWS;
  let opened = null;
  let logNext = -1;
  let logEmpty = false;
  let started = false;
  let lost = 0;
  let view = "runs";

  async function get(path) {
    try {
      const answer = await fetch(path, { cache: "no-store" });
      if (answer.status === 403) {
        state("Open the address that 'trainer view' printed: this one has no token any more.");
        return null;
      }
      if (!answer.ok) return null;
      lost = 0;
      return await answer.json();
    } catch {
      lost += 1;
      if (lost > 2) state("The server has ended. Start it again: trainer view");
      return null;
    }
  }

  function state(text) {
    if (byId("state").textContent !== text) byId("state").textContent = text;
  }

  function label(run) {
    return page.rows.get(run)?.name || run.slice(9);
  }

  function number(value) {
    if (value === null || value === undefined) return "-";
    if (typeof value !== "number") return String(value);
    return Math.abs(value) >= 1000 || (Number.isInteger(value) && Math.abs(value) > 1) ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : value.toPrecision(4);
  }

  function span(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    if (whole < 60) return `${whole} s`;
    const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, String(whole % 60).padStart(2, "0")];
    return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  }

  function size(bytes) {
    for (const unit of ["B", "kB", "MB"]) {
      if (bytes < 999.5) return `${unit === "B" || bytes >= 99.5 ? bytes.toFixed(0) : bytes.toFixed(1)} ${unit}`;
      bytes /= 1000;
    }
    return `${bytes.toFixed(1)} GB`;
  }

  function moment(seconds) {
    return new Date(seconds * 1000).toLocaleString("sv");
  }

  function metricsOf(runs) {
    const names = new Set();
    for (const run of runs) for (const [name, count] of Object.entries(page.rows.get(run)?.counts || {})) if (count > 1 && !GIVEN.has(name)) names.add(name);
    return page.metrics.filter((name) => names.has(name)).slice(0, 12);
  }

  function columns() {
    const main = page.metrics.slice(0, 2);
    const rows = [...page.rows.values()];
    const found = [{ name: "run", title: "Run" }, { name: "status", title: "Status" }];
    for (const name of main) found.push({ name, title: name, number: true });
    if (main.length) found.push({ name: `best:${main[0]}`, title: `Best ${main[0]}`, number: true });
    for (const name of page.parameters) found.push({ name: `param:${name}`, title: name });
    if (rows.some((row) => Object.keys(row.tags).length)) found.push({ name: "tags", title: "Tags" });
    if (new Set(rows.map((row) => row.experiment)).size > 1) found.push({ name: "experiment", title: "Experiment" });
    if (new Set(rows.map((row) => row.backend)).size > 1) found.push({ name: "backend", title: "Backend" });
    found.push({ name: "took", title: "Took", number: true }, { name: "created", title: "Created" }, { name: "model", title: "Model" });
    if (rows.some((row) => row.note)) found.push({ name: "note", title: "Note" });
    if (rows.some((row) => row.failure)) found.push({ name: "failure", title: "Reason" });
    return found;
  }

  function visible() {
    const passes = Query.filter(byId("filter").value.trim());
    const rows = [...page.rows.values()].filter(passes);
    const known = (row) => Query.value(row, sort.name) ?? null;
    rows.sort((a, b) => {
      const [x, y] = [known(a), known(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return Query.compare(x, y) * (sort.down ? -1 : 1);
    });
    return rows;
  }

  function cell(row, column) {
    const value = Query.value(row, column.name) ?? null;
    if (column.name === "created") return moment(row.created);
    if (column.name === "took") return value === null ? (LIVE.has(row.status) && row.started ? span(Date.now() / 1000 - row.started) : "") : span(value);
    if (value === null) return "";
    return column.number ? number(value) : String(value);
  }

  function drawTable() {
    const shown = columns();
    drawHead(shown);
    const rows = visible();
    const body = byId("table").tBodies[0];
    const focused = document.activeElement?.dataset?.key;
    body.replaceChildren(...rows.slice(0, shownRows).map((row) => drawRow(row, shown)));
    if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    const all = page.rows.size;
    byId("count").textContent = rows.length === all ? `${all.toLocaleString("en")} runs` : `${rows.length.toLocaleString("en")} of ${all.toLocaleString("en")} runs`;
    byId("more").hidden = rows.length <= shownRows;
    drawParallel(rows);
  }

  function drawHead(shown) {
    const key = JSON.stringify([shown, sort]);
    const head = byId("table").tHead;
    if (head.dataset.shown === key) return;
    const focused = document.activeElement?.dataset?.sort;
    head.dataset.shown = key;
    const line = make("tr");
    const pick = make("th");
    pick.append(make("span", "On the curves", "hidden"));
    line.append(pick);
    for (const column of shown) {
      const title = make("th", undefined, column.number ? "number" : "");
      title.scope = "col";
      const button = make("button", column.title);
      button.dataset.sort = column.name;
      if (column.name === sort.name) title.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      button.addEventListener("click", () => {
        sort = { name: column.name, down: column.name === sort.name ? !sort.down : Boolean(column.number) || column.name === "created" };
        drawTable();
      });
      title.append(button);
      line.append(title);
    }
    head.replaceChildren(line);
    if (focused) head.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
  }

  function drawRow(row, shown) {
    const run = row.run_id;
    const line = make("tr", undefined, run === opened ? "shown" : "");
    const pick = make("td", undefined, "pick");
    const box = make("input");
    box.type = "checkbox";
    box.checked = page.chosen.has(run);
    box.dataset.key = `pick-${run}`;
    box.setAttribute("aria-label", `Curves of ${label(run)}`);
    box.addEventListener("change", () => choose(run, box.checked));
    pick.append(box);
    if (box.checked) {
      const swatch = make("span", undefined, "swatch");
      swatch.style.background = Curves.colour(run);
      pick.append(swatch);
    }
    line.append(pick);
    for (const column of shown) {
      const place = make("td", undefined, column.number ? "number" : "");
      if (column.name === "run") {
        const open = make("button", row.name || run, "open");
        open.dataset.key = `open-${run}`;
        open.addEventListener("click", () => openRun(run));
        place.append(open);
      } else {
        place.textContent = cell(row, column);
        if (column.name === "status") place.className = row.status;
        if (place.textContent.length > 24) place.title = place.textContent;
        if (column.name === "status" && row.failure) place.title = row.failure.message;
      }
      line.append(place);
    }
    return line;
  }

  function drawParallel(rows) {
    const box = byId("parallel-box");
    const metric = page.metrics[0];
    box.hidden = !(metric && page.parameters.length && rows.length > 1);
    if (!box.hidden && box.open) box.hidden = !Parallel.draw(byId("parallel"), rows, page.parameters, metric, page.chosen, Curves.colour);
  }

  function choose(run, on) {
    if (on) page.chosen.add(run);
    else {
      page.chosen.delete(run);
      Curves.release(run);
    }
    remember();
    drawTable();
    Curves.draw(page);
  }

  function remember() {
    history.replaceState(null, "", page.chosen.size ? `#runs=${[...page.chosen].join(",")}` : "#");
  }

  async function openRun(run) {
    if (opened !== run) {
      logNext = -1;
      logEmpty = false;
      byId("output").textContent = "";
    }
    opened = run;
    byId("detail").hidden = false;
    byId("detail-title").textContent = label(run) === run ? `Run ${run}` : `Run ${label(run)}`;
    drawTable();
    await Promise.all([drawDetail(), drawLog()]);
    byId("detail").scrollIntoView({ block: "nearest" });
  }

  function stopped(by) {
    return by && `by ${by.by} at step ${by.step}: ${number(by.value)}, bound ${number(by.bound)}`;
  }

  async function drawDetail() {
    const run = opened;
    const answer = run && (await get(`api/run/${run}`));
    if (!answer || run !== opened) return;
    const row = page.rows.get(run);
    const facts = [
      ["Id", run], ["Status", answer.info.status], ["Reason", answer.info.failure?.message], ["Command", answer.command.join(" ")],
      ["Backend", answer.info.backend], ["Experiment", answer.info.experiment], ["Data set", answer.info.dataset], ["Note", row?.note],
      ["Study", answer.info.study && `${answer.info.study}, trial ${answer.info.trial}`], ["Stopped", stopped(answer.info.stopped)],
      ["Tags", row && Query.value(row, "tags")], ["Created", moment(answer.info.created)], ["Resumed from", answer.info.resumed_from],
      ["Model", row && Query.value(row, "model")], ["Snapshot", answer.info.snapshot],
      ...(answer.info.warnings || []).map((text) => ["Warning", text]),
      ...Object.keys(row?.metrics || {}).filter((name) => !GIVEN.has(name)).map((name) => [name, `${number(row.metrics[name])}, best ${number(row.best[name])}`]),
    ];
    byId("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
    const address = (file) => `files/${run}/${file.path.split("/").map(encodeURIComponent).join("/")}`;
    byId("files").replaceChildren(...answer.files.map((file) => {
      const item = make("li");
      const link = make("a", file.path);
      link.href = address(file);
      link.target = "_blank";
      link.rel = "noreferrer";
      item.append(link, " ", make("small", size(file.size)));
      return item;
    }));
    const pictures = answer.files.filter((file) => /\.(png|jpe?g|gif|webp|svg)$/i.test(file.path)).slice(0, 24);
    const key = JSON.stringify([run, pictures]);
    if (byId("pictures").dataset.shown !== key) {
      byId("pictures").dataset.shown = key;
      byId("pictures").replaceChildren(...pictures.map((file) => {
        const picture = make("img");
        picture.src = address(file);
        picture.alt = file.path;
        picture.loading = "lazy";
        return picture;
      }));
    }
  }

  async function drawLog() {
    const run = opened;
    const answer = run && (await get(`api/log/${run}?since=${logNext}`));
    if (!answer || run !== opened) return;
    const box = byId("output");
    if (answer.text) {
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
      if (logEmpty) box.textContent = "";
      logEmpty = false;
      box.append(answer.cut ? `... ${answer.text}` : answer.text);
      if (box.textContent.length > 400000) box.textContent = `... ${box.textContent.slice(-200000)}`;
      if (atEnd) box.scrollTop = box.scrollHeight;
    } else if (logNext < 0 || logEmpty) {
      logEmpty = true;
      box.textContent = LIVE.has(page.rows.get(run)?.status) ? "The script has printed nothing yet." : "The script printed nothing.";
    }
    logNext = answer.next;
  }

  async function look() {
    const answer = await get(`api/runs?since=${version}`);
    if (!answer) return;
    version = answer.version;
    byId("project").textContent = answer.project;
    const changed = new Set(answer.rows.map((row) => row.run_id));
    for (const row of answer.rows) page.rows.set(row.run_id, row);
    for (const run of answer.removed) {
      page.rows.delete(run);
      page.chosen.delete(run);
      if (run === opened) closeRun();
    }
    if (answer.metrics) page.metrics = answer.metrics;
    if (answer.parameters) page.parameters = answer.parameters;
    if (!started) {
      firstChoice();
      if (studyAsked) tab("studies");
    }
    const live = [...page.rows.values()].filter((row) => LIVE.has(row.status)).length;
    state(live ? `${live} under way, live` : "live");
    if (changed.size || answer.removed.length || !started) {
      drawTable();
      if ([...page.chosen].some((run) => changed.has(run)) || answer.removed.length || !started) Curves.draw(page);
    }
    if (opened && (changed.has(opened) || LIVE.has(page.rows.get(opened)?.status))) await Promise.all([drawDetail(), drawLog()]);
    started = true;
  }

  function firstChoice() {
    const asked = (location.hash.match(/runs=([\w,-]+)/)?.[1] || "").split(",").filter((run) => page.rows.has(run));
    const newest = visible().filter((row) => Object.keys(row.metrics).length).slice(0, 5).map((row) => row.run_id);
    for (const run of asked.length ? asked : newest) page.chosen.add(run);
  }

  async function drawModels() {
    const found = await get("api/models");
    if (!found) return;
    const head = make("tr");
    for (const title of ["Model", "Accuracy", "Data set", "Size", "Created", "Run", "SHA-256"]) head.append(make("th", title));
    byId("models").tHead.replaceChildren(head);
    byId("models").tBodies[0].replaceChildren(...found.reverse().map((model) => {
      const line = make("tr");
      const cells = [`${model.name}:${model.version}`, number(model.metrics.Accuracy), model.dataset || "", size(model.size), moment(model.created), model.run_id, model.sha256.slice(0, 16)];
      line.append(...cells.map((text) => make("td", text)));
      return line;
    }));
  }

  function tab(wanted) {
    view = wanted;
    for (const name of VIEWS) {
      byId(`view-${name}`).hidden = name !== wanted;
      byId(`tab-${name}`).setAttribute("aria-pressed", String(name === wanted));
    }
    if (wanted === "models") drawModels();
    if (wanted === "runs") {
      remember();
      Curves.resize();
    }
    if (wanted === "studies") {
      history.replaceState(null, "", Studies.address());
      Studies.look();
    }
  }

  // Of a study's trial: its run, on the page of runs.
  function show(run) {
    tab("runs");
    openRun(run);
  }

  function compare(runs) {
    for (const run of [...page.chosen]) { page.chosen.delete(run); Curves.release(run); }
    for (const run of runs) if (page.rows.has(run) && page.chosen.size < MOST_CURVES) page.chosen.add(run);
    tab("runs");
    drawTable();
    Curves.draw(page);
    byId("curves").focus();
  }

  function closeRun() {
    const run = opened;
    opened = null;
    byId("detail").hidden = true;
    drawTable();
    document.querySelector(`[data-key="open-${run}"]`)?.focus();
  }

  byId("filter").addEventListener("input", () => { shownRows = FIRST_ROWS; drawTable(); });
  byId("more").addEventListener("click", () => { shownRows *= 5; drawTable(); });
  byId("none").addEventListener("click", () => {
    for (const run of [...page.chosen]) { page.chosen.delete(run); Curves.release(run); }
    remember();
    drawTable();
    Curves.draw(page);
  });
  byId("axis").addEventListener("change", (event) => { page.axis = event.target.value; Curves.whole(page); });
  byId("smooth").addEventListener("input", (event) => { page.smooth = Number(event.target.value); Curves.draw(page); });
  byId("log").addEventListener("change", (event) => { page.log = event.target.checked; Curves.draw(page); });
  byId("whole").addEventListener("click", () => Curves.whole(page));
  byId("close").addEventListener("click", closeRun);
  byId("parallel-box").addEventListener("toggle", drawTable);
  for (const name of VIEWS) byId(`tab-${name}`).addEventListener("click", () => tab(name));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opened) closeRun();
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      byId("filter").focus();
    }
  });
  addEventListener("resize", Curves.resize);
  Curves.dark.addEventListener("change", () => { drawTable(); Curves.draw(page); });

  const studyAsked = Studies.start(page);
  (async function forever() {
    for (;;) {
      if (document.visibilityState === "visible") await look();
      if (document.visibilityState === "visible" && view === "studies") await Studies.look();
      await new Promise((resolve) => { setTimeout(resolve, EVERY); });
    }
  })();
})();
