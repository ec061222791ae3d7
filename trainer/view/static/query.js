// What a run has under a name, and which runs a filter lets through. Names as in `trainer runs --where`.
"use strict";

const Query = (() => {
  const FIELDS = {
    run: (row) => row.run_id,
    name: (row) => row.name,
    status: (row) => row.status,
    backend: (row) => row.backend,
    experiment: (row) => row.experiment,
    script: (row) => row.script,
    dataset: (row) => row.dataset,
    model: (row) => (row.model ? `${row.model.name}:${row.model.version}` : null),
    created: (row) => row.created,
    took: (row) => (row.ended ? row.ended - (row.started || row.created) : null),
    failure: (row) => (row.failure ? row.failure.message : null),
    note: (row) => row.note,
    tags: (row) => Object.entries(row.tags).map(([name, value]) => `${name}=${value}`).join(" ") || null,
  };
  const fold = (name) => name.replace(/[\s_-]+/g, "").toLowerCase();

  function find(table, name) {
    if (name in table) return table[name];
    const key = Object.keys(table).find((other) => fold(other) === fold(name));
    return key === undefined ? null : table[key];
  }

  function value(row, name) {
    if (name.startsWith("best:")) return find(row.best, name.slice(5));
    if (name.startsWith("param:")) return find(row.parameters, name.slice(6));
    if (name in FIELDS) return FIELDS[name](row);
    return find(row.metrics, name) ?? find(row.parameters, name) ?? find(row.tags, name);
  }

  const COMPARE = {
    ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "!=": (a, b) => a !== b,
    "==": (a, b) => a === b, "=": (a, b) => a === b, ">": (a, b) => a > b, "<": (a, b) => a < b,
  };

  function condition(name, sign, wanted) {
    return (row) => {
      const found = value(row, name);
      if (found === null || found === undefined) return sign === "!=";
      if (sign === "~") return String(found).toLowerCase().includes(wanted.toLowerCase());
      const [a, b] = [Number(found), Number(wanted)];
      if (found !== "" && wanted !== "" && !Number.isNaN(a) && !Number.isNaN(b)) return COMPARE[sign](a, b);
      return COMPARE[sign](String(found).toLowerCase(), wanted.toLowerCase());
    };
  }

  // Words that are no condition must each occur somewhere in what the row shows.
  function filter(text) {
    const tests = [];
    for (const word of text.match(/(?:[^\s"]|"[^"]*")+/g) || []) {
      const found = word.replaceAll('"', "").match(/^(.+?)(>=|<=|!=|==|=|>|<|~)(.*)$/);
      if (found) tests.push(condition(found[1], found[2], found[3]));
      else tests.push((row) => haystack(row).includes(word.replaceAll('"', "").toLowerCase()));
    }
    return (row) => tests.every((test) => test(row));
  }

  function haystack(row) {
    const shown = [row.run_id, ...["name", "status", "backend", "experiment", "script", "dataset", "model", "failure", "note", "tags"].map((name) => FIELDS[name](row) || "")];
    return [...shown, ...row.arguments].join(" ").toLowerCase();
  }

  function compare(a, b) {
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  return { value, filter, compare };
})();
