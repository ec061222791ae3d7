// Parallel coordinates: every run a line through its parameters to its best result.
"use strict";

const Parallel = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MOST = 400;

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Where a value lies between 0 and 1: numbers by size, anything else by rank.
  function scale(values) {
    const known = values.filter((value) => value !== null && value !== undefined && value !== "");
    const numbers = known.map(Number);
    if (numbers.every((value) => !Number.isNaN(value))) {
      const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
      const log = low > 0 && high / low >= 50;
      const at = (value) => (log ? Math.log(value) : value);
      const span = at(high) - at(low) || 1;
      return { place: (value) => (at(Number(value)) - at(low)) / span, marks: [...new Set(log || new Set(numbers).size > 6 ? [low, high] : numbers)] };
    }
    const words = [...new Set(known.map(String))].sort();
    return { place: (value) => words.indexOf(String(value)) / Math.max(words.length - 1, 1), marks: words.slice(0, 12) };
  }

  // look: the last axis's title, what a row is, and how strongly (0 to 1) each is drawn.
  function draw(place, rows, parameters, metric, chosen, colour, look = {}) {
    const shown = rows.filter((row) => row.best[metric] !== null && row.best[metric] !== undefined).slice(0, MOST);
    const axes = parameters.slice(0, 6).map((name) => ({ name, of: (row) => row.parameters[name] }));
    axes.push({ name: look.axis || `best ${metric}`, of: (row) => row.best[metric] });
    if (shown.length < 2 || axes.length < 2) return false;
    const [width, height, margin] = [640, 240, 40];
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.append(element("title", {}, `${shown.length} ${look.what || "runs"}: ${axes.map((axis) => axis.name).join(", ")}`));
    axes.forEach((axis, index) => {
      axis.x = margin + (index * (width - 2 * margin)) / (axes.length - 1);
      axis.scale = scale(shown.map(axis.of));
      axis.y = (row) => {
        const value = axis.of(row);
        return value === undefined || value === null ? height - 8 : 190 - 150 * axis.scale.place(value);
      };
    });
    const lines = [...shown].sort((a, b) => Number(chosen.has(a.run_id)) - Number(chosen.has(b.run_id)));
    for (const row of lines) {
      const line = element("polyline", { points: axes.map((axis) => `${axis.x},${axis.y(row).toFixed(1)}`).join(" "), class: chosen.has(row.run_id) ? "run shown" : "run" });
      if (chosen.has(row.run_id)) line.style.stroke = colour(row.run_id);
      else if (look.strength) line.style.strokeOpacity = look.strength(row);
      line.append(element("title", {}, row.name || row.run_id));
      svg.append(line);
    }
    for (const [index, axis] of axes.entries()) {
      const last = index === axes.length - 1;
      svg.append(element("line", { x1: axis.x, x2: axis.x, y1: 40, y2: 190, class: "axis" }));
      // No longer than its share of the width: the end of validation/main/accuracy tells more than its beginning.
      const most = Math.max(8, Math.floor((width - 2 * margin) / (axes.length - 1) / 9.3));
      const label = axis.name.length > most ? `…${axis.name.slice(1 - most)}` : axis.name;
      const name = element("text", { x: axis.x, y: 22, "text-anchor": index === 0 ? "start" : last ? "end" : "middle" }, label);
      name.append(element("title", {}, axis.name));
      svg.append(name);
      for (const mark of axis.scale.marks) {
        const text = typeof mark === "number" ? String(Number(mark.toPrecision(4))) : mark.slice(0, 14);
        svg.append(element("text", { x: axis.x + (last ? -5 : 5), y: 194 - 150 * axis.scale.place(mark), "text-anchor": last ? "end" : "start" }, text));
      }
    }
    place.replaceChildren(svg);
    return true;
  }

  return { draw };
})();
