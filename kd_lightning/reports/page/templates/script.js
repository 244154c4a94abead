"use strict";

// A click on a column's head sorts the rows by it; a second click reverses the order.
function sortBy(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const column = head.cellIndex;
  const wasAscending = head.getAttribute("aria-sort") === "ascending";
  const rows = Array.from(table.tBodies[0].rows);
  const numeric = rows.some((row) => row.cells[column].dataset.sort);
  const value = (row) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.sort ? Number(cell.dataset.sort) : null;
  };
  // the first click on a column of numbers shows the largest first
  const first = head.getAttribute("aria-sort") === "none" && numeric;
  const sign = first || wasAscending ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // empty cells are last
    return sign * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
  });
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
}

// A click on a name in a legend hides or shows what has this name.
function toggle(button) {
  const isShown = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!isShown));
  for (const mark of button.closest("figure").querySelectorAll("svg [data-key]")) {
    if (mark.dataset.key === button.dataset.key) mark.classList.toggle("hidden", isShown);
  }
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code); // the reader can copy what is selected
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.closest("table.sortable thead")) sortBy(button);
  else if (button.closest(".legend")) toggle(button);
  else if (button.classList.contains("copy")) copy(button);
});

// Paper cannot be unfolded.
const folded = () => document.querySelectorAll("details:not([open])");
addEventListener("beforeprint", () => {
  for (const part of folded()) {
    part.open = true;
    part.dataset.wasFolded = "";
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-was-folded]")) {
    part.open = false;
    delete part.dataset.wasFolded;
  }
});
