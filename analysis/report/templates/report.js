"use strict";
// Sortable tables: a button in each heading; undefined values stay last in both directions.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const numeric = !isNaN(x) && !isNaN(y);
        const order = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return descending ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Hover: light up the same trial in every chart and read its values out below the charts.
const marks = [...document.querySelectorAll("[data-label]")];
const readout = document.querySelector("output.readout");
const resting = readout?.textContent;
function valueAt(mark, event) {
  const svg = mark.ownerSVGElement;
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const pairs = mark.dataset.values.split(" ").map((pair) => pair.split(":"));
  const drawn = [...mark.querySelectorAll(".line")].flatMap((line) => [...line.points]);
  const shown = pairs.filter((pair) => pair[1] !== "–");
  if (!drawn.length || drawn.length !== shown.length) return "";
  let nearest = 0;
  drawn.forEach((point, index) => {
    if (Math.abs(point.x - place.x) < Math.abs(drawn[nearest].x - place.x)) nearest = index;
  });
  return `, epoch ${shown[nearest][0]}: ${shown[nearest][1]}`;
}
for (const mark of marks) {
  mark.addEventListener("pointermove", (event) => {
    for (const other of marks) other.classList.toggle("lit", other.dataset.label === mark.dataset.label);
    document.body.classList.add("dimmed");
    const title = mark.querySelector("title").textContent;
    if (readout) readout.textContent = title + (mark.dataset.values ? valueAt(mark, event) : "");
  });
  mark.addEventListener("pointerleave", () => {
    document.body.classList.remove("dimmed");
    if (readout) readout.textContent = resting;
  });
}
