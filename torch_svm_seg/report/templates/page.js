"use strict";

// Sorts a table by a column: from largest (or A), from smallest (or Z), then as it was. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];

  const sort = (column, direction) => {
    const numeric = heads[column].dataset.kind === "number";
    const value = (row) => row.cells[column].dataset.value;
    const compare = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      const order = numeric ? Number(a) - Number(b) : a.localeCompare(b, "en");
      return direction === "ascending" ? order : -order;
    };
    body.append(...(direction === "none" ? original : [...original].sort(compare)));
    heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? direction : "none"));
  };

  heads.forEach((head, column) => {
    const first = head.dataset.kind === "number" ? "descending" : "ascending";
    const second = first === "descending" ? "ascending" : "descending";
    const next = { none: first, [first]: second, [second]: "none" };
    head.querySelector("button").addEventListener("click", () => sort(column, next[head.getAttribute("aria-sort")]));
  });
}
