// The lesion table: a click on a head sorts, a click on a row selects.

export function createTable(table, onSelect) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = new Map([...body.rows].map((row) => [Number(row.dataset.lesion), row]));

  function sortBy(head) {
    const column = heads.indexOf(head);
    const direction = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const value = (row) => {
      const text = row.cells[column].dataset.value;
      return text === "" ? -Infinity : Number(text);
    };
    const sign = direction === "ascending" ? 1 : -1;
    body.append(...[...body.rows].sort((a, b) => sign * (value(a) - value(b))));
  }

  // Scrolls the table's own frame only, never the page.
  function scrollTo(row) {
    const frame = table.parentElement;
    const [top, bottom] = [row.offsetTop - table.tHead.offsetHeight, row.offsetTop + row.offsetHeight];
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (bottom > frame.scrollTop + frame.clientHeight) frame.scrollTop = bottom - frame.clientHeight;
  }

  heads.forEach((head) => head.querySelector("button").addEventListener("click", () => sortBy(head)));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-lesion]");
    if (row) onSelect(Number(row.dataset.lesion));
  });

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
