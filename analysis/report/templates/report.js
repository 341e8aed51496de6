"use strict";
// Tables: a heading sorts (undefined values stay last in both directions), a box finds. A table of many trials holds its
// first rows as markup; all of them lie in #rows and are drawn, 200 at a time, as soon as someone sorts or searches.
const SHOWN = 200;
const stored = JSON.parse(document.getElementById("rows").textContent);
const columnsOf = (table) => [...table.tHead.rows[0].cells];
function storedRow(cells) {
  const row = document.createElement("tr");
  cells.forEach(([text, small, sort], place) => {
    const cell = row.appendChild(document.createElement(place ? "td" : "th"));
    if (!place) cell.scope = "row";
    cell.textContent = text;
    if (sort !== undefined) cell.dataset.sort = sort ?? "";
    if (small) cell.append(" ", Object.assign(document.createElement("small"), { textContent: small }));
  });
  return row;
}
const textOf = (cells) => cells.map(([text, small]) => `${text} ${small ?? ""}`).join(" ").toLowerCase();
const OPERATORS = { ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b };
function entriesOf(table) {
  if (table.id === "all-trials" && stored.length) {
    return stored.map((cells) => ({ text: textOf(cells), key: (c) => String(cells[c][2] ?? (cells[c].length > 2 ? "" : cells[c][0])), row: () => storedRow(cells) }));
  }
  return [...table.tBodies[0].rows].map((row) => ({
    text: row.textContent.toLowerCase(), row: () => row,
    key: (c) => row.cells[c].dataset.sort ?? row.cells[c].textContent.trim(),
  }));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = columnsOf(table);
  const names = headings.map((heading) => heading.textContent.trim().toLowerCase());
  let entries, order = null, wanted = "";
  const fits = (entry) => wanted.split(/\s+/).every((word) => {
    const asked = /^([^<>=]+)(>=|<=|>|<|=)(.+)$/.exec(word);
    const column = asked ? names.indexOf(asked[1]) : -1;
    if (column < 0) return entry.text.includes(word);
    const [value, limit] = [entry.key(column), asked[3]];
    if (value === "") return false;
    return asked[2] === "=" && isNaN(limit) ? value.toLowerCase() === limit : OPERATORS[asked[2]](Number(value), Number(limit));
  });
  const draw = () => {
    entries ??= entriesOf(table);
    const found = wanted ? entries.filter(fits) : [...entries];
    if (order) {
      const { column, descending } = order;
      found.sort((a, b) => {
        const [x, y] = [a.key(column), b.key(column)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const numeric = !isNaN(x) && !isNaN(y);
        const sign = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return descending ? -sign : sign;
      });
    }
    table.tBodies[0].replaceChildren(...found.slice(0, SHOWN).map((entry) => entry.row()));
    const count = document.querySelector(`output[data-count="${table.id}"]`);
    if (count) count.textContent = `${found.length} of ${entries.length} trials${found.length > SHOWN ? `, the first ${SHOWN} shown` : ""}`;
  };
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      order = { column, descending };
      draw();
    });
  });
  document.querySelector(`input[data-table="${table.id || "none"}"]`)?.addEventListener("input", (event) => {
    wanted = event.target.value.trim().toLowerCase();
    draw();
  });
}
// Pointing at a mark, or going from mark to mark of a chart with the arrow keys, lights up the same trial in every chart
// and reads its values out.
const marks = [...document.querySelectorAll("[data-label]")];
const readout = document.querySelector("output.readout");
function nearest(mark, x) {
  const pairs = mark.dataset.values.split(" ").map((pair) => pair.split(":"));
  const drawn = [...mark.querySelectorAll(".line")].flatMap((line) => [...line.points]);
  const shown = pairs.filter((pair) => pair[1] !== "–");
  if (!drawn.length || drawn.length !== shown.length) return "";
  const away = drawn.map((point) => Math.abs(point.x - x));
  const [place, value] = shown[away.indexOf(Math.min(...away))];
  return `, ${mark.ownerSVGElement.dataset.over ?? "epoch"} ${place}: ${value}`;
}
function light(mark, x) {
  for (const other of marks) other.classList.toggle("lit", other.dataset.label === mark.dataset.label);
  document.body.classList.add("dimmed");
  readout.textContent = mark.querySelector("title").textContent + (mark.dataset.values ? nearest(mark, x) : "");
}
function rest() {
  document.body.classList.remove("dimmed");
  readout.textContent = "";
}
for (const mark of marks) {
  mark.addEventListener("pointermove", (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(mark.ownerSVGElement.getScreenCTM().inverse());
    light(mark, place.x);
  });
  mark.addEventListener("pointerleave", rest);
}
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
for (const chart of new Set(marks.map((mark) => mark.ownerSVGElement))) {
  const own = [...chart.querySelectorAll("[data-label]")];
  let at = -1;
  chart.tabIndex = 0;
  chart.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { at = -1; rest(); }
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    at = at < 0 ? own.length - 1 : (at + step + own.length) % own.length;
    light(own[at], 1e6);
  });
  chart.addEventListener("blur", rest);
}

// On paper nothing can be opened.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
