"use strict";
const find = (id) => document.getElementById(id);

// Tables: a heading sorts by its column, numbers as numbers; once more turns the order round.
function columnsOf(table) {
  const taken = [], columns = [];
  [...table.tHead.rows].forEach((row, y) => {
    let x = 0;
    for (const cell of row.cells) {
      while (taken[y]?.[x]) x++;
      for (let i = 0; i < cell.rowSpan; i++) for (let j = 0; j < cell.colSpan; j++) (taken[y + i] ??= [])[x + j] = true;
      if (cell.colSpan === 1 && y + cell.rowSpan === table.tHead.rows.length) columns.push([cell, x]);
      x += cell.colSpan;
    }
  });
  return columns;
}

function valueOf(row, column) {
  const cell = row.cells[column];
  if (!cell || cell.colSpan > 1) return null;
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("small, svg").forEach((part) => part.remove());
  const text = (cell.dataset.value ?? copy.textContent).replace("−", "-").replace(/^[\s▲▼=]+/, "").trim();
  const number = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i.exec(text);
  return number ? Number(number[0]) : text === "" || text === "–" ? null : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, undefined, { numeric: true });
}

function sortBy(table, heading, column) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.classList.add("sorted");
  for (const body of table.tBodies) {
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    const known = rows.filter(([value]) => value !== null).sort((a, b) => compare(a[0], b[0]) * (down ? -1 : 1));
    body.append(...known.map(([, row]) => row), ...rows.filter(([value]) => value === null).map(([, row]) => row));
  }
}

for (const table of document.querySelectorAll("table:not(.pictures)")) {
  if (!table.tHead) continue;
  for (const [heading, column] of columnsOf(table)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sortBy(table, heading, column));
  }
}

// Pictures: two of the grid laid over each other.
const viewer = find("viewer");
if (viewer) {
  const stage = find("viewer-stage"), cut = find("viewer-cut"), auto = find("viewer-auto"), rows = find("grid").tBodies[0].rows;
  const modes = [...viewer.querySelectorAll("[name=viewer-mode]")], said = find("viewer-said");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const picked = () => modes.find((radio) => radio.checked).value;

  function put(target, source, name) {
    target.className = source && name ? "pic " + name + (source.classList.contains("clip") ? " clip" : "") : "pic";
    target.style.cssText = source?.style.cssText ?? "";
    target.setAttribute("aria-label", source?.getAttribute("aria-label") ?? "no picture");
  }
  function show() {
    const row = rows[find("viewer-prompt").value], cell = row.cells[find("viewer-contender").value];
    const plain = row.cells[1].querySelector(".pic"), made = cell.querySelector(".pic");
    put(find("viewer-plain"), plain, plain?.classList[1]);
    put(find("viewer-made"), made, made?.classList[1]);
    put(find("viewer-difference"), made, made?.dataset.difference);
    find("viewer-difference").setAttribute("aria-label", "difference magnified");
    find("viewer-name").textContent = find("viewer-contender").selectedOptions[0].textContent;
    stage.dataset.mode = picked();
    find("viewer-slide").hidden = picked() !== "slide";
    find("viewer-turns").hidden = picked() !== "flicker";
    const value = cell.querySelector("small").textContent;
    said.textContent = made ? (value ? value + " to plain." : "") : "No picture of this was kept.";
    document.getAnimations().forEach((animation) => { if (animation.playState === "running") animation.startTime = 0; });
  }
  function swap() {
    const other = stage.classList.toggle("other");
    if (!auto.checked) said.textContent = "Shown: " + (other ? "plain" : find("viewer-name").textContent);
  }
  auto.checked = !calm.matches;
  viewer.addEventListener("change", show);
  cut.addEventListener("input", () => stage.style.setProperty("--cut", cut.value + "%"));
  stage.addEventListener("pointermove", (event) => {
    const box = find("viewer-plain").getBoundingClientRect();
    if (picked() !== "slide" || !box.width) return;
    cut.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    cut.dispatchEvent(new Event("input"));
  });
  find("viewer-swap").addEventListener("click", () => { auto.checked = false; swap(); });
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "f" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    if (picked() === "flicker") find("viewer-swap").click();
    else { modes.find((radio) => radio.value === "flicker").checked = true; show(); }
  });
  setInterval(() => { if (auto.checked && picked() === "flicker") swap(); }, 700);
  find("grid").addEventListener("click", (event) => {
    const cell = event.target.closest("td"), column = cell?.cellIndex;
    if (!event.target.matches(".pic") || column < 2) return;
    find("viewer-prompt").value = cell.parentNode.sectionRowIndex;
    find("viewer-contender").value = column;
    show();
    viewer.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  });
  viewer.hidden = false;
  document.querySelectorAll(".scripted").forEach((part) => { part.hidden = false; });
  show();
}
for (const box of document.querySelectorAll(".still"))
  box.addEventListener("change", () => document.querySelectorAll(".still").forEach((other) => { other.checked = box.checked; }));

// The command is copied; on paper everything is unfolded.
for (const pre of document.querySelectorAll("pre.command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(pre);
    try { await navigator.clipboard.writeText(pre.textContent); } catch { document.execCommand("copy"); }
    button.textContent = "Copied";
  });
  pre.after(button);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
