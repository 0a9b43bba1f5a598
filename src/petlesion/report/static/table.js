// Tables: a click on a head sorts, a click on a lesion's row selects it.

function compare(a, b) {
  if (a === "" || b === "") return Number(a !== "") - Number(b !== "");
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

// Sorts by the cells' data-value, the largest first; empty values stand last in that order.
export function makeSortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  function sortBy(head) {
    const column = heads.indexOf(head);
    const direction = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    body.append(...[...body.rows].sort((a, b) => sign * compare(value(a), value(b))));
  }

  heads.forEach((head) => head.querySelector("button")?.addEventListener("click", () => sortBy(head)));
}

export function createLesionTable(table, onSelect) {
  const body = table.tBodies[0];
  const rows = new Map([...body.rows].map((row) => [Number(row.dataset.lesion), row]));
  makeSortable(table);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-lesion]");
    if (row) onSelect(Number(row.dataset.lesion));
  });

  // Scrolls the table's own frame only, never the page.
  function scrollTo(row) {
    const frame = table.parentElement;
    const [top, bottom] = [row.offsetTop - table.tHead.offsetHeight, row.offsetTop + row.offsetHeight];
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (bottom > frame.scrollTop + frame.clientHeight) frame.scrollTop = bottom - frame.clientHeight;
  }

  return {
    numbers: () => [...body.rows].map((row) => Number(row.dataset.lesion)),
    mark(number) {
      for (const row of body.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
      const row = rows.get(number);
      if (!row) return;
      row.setAttribute("aria-current", "true");
      scrollTo(row);
    },
  };
}
