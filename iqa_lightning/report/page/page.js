"use strict";
// What the page does without charts: theme, sorted tables, the gallery. Names from data only ever become text nodes.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const ALL = "";

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(redraw) {
  $("theme").setAttribute("aria-pressed", String(isDark()));
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  if (redraw && window.Plotly) drawAll();
}

function colour(name) { // of a CSS variable, resolved for the theme
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function sortTable(heading) {
  const table = heading.closest("table");
  const place = [...heading.parentNode.children].indexOf(heading);
  const numeric = heading.classList.contains("number");
  const better = numeric && !heading.textContent.includes("↓"); // the best first
  const before = heading.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : better;
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.children[place];
    return numeric ? parseFloat(cell.dataset.value ?? "NaN") : cell.textContent;
  };
  const sign = descending ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (!numeric) return sign * a.localeCompare(b);
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // missing ones last, either way
    return sign * (a - b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function options(select, entries, wanted) { // entries: [value, label]; keeps what was chosen where it still exists
  const kept = wanted ?? select.value;
  select.replaceChildren(...entries.map(([value, label]) => new Option(label, value)));
  if (entries.some(([value]) => value === kept)) select.value = kept;
  else select.selectedIndex = 0;
}

const unique = (list) => [...new Set(list)];
const arrows = (order) => order.replaceAll(">", " → ");

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function shot(image) {
  const place = element("div", "shot");
  if (image.picture === null) place.append("no picture at hand");
  else {
    const picture = element("img");
    picture.src = data.pictures[image.picture];
    picture.alt = `${image.image} of ${image.dataset}`;
    picture.loading = "lazy";
    place.append(picture);
  }
  const ranks = element("dl");
  for (const [label, key, kind] of [["people", "rank_mos", ""], ["just learnt", "rank_before", "was"], ["at the end", "rank_after", "now"]]) {
    const bar = element("i", kind);
    bar.style.width = `${100 * image[key]}%`;
    ranks.append(element("dt", "", label), element("div", "meter", bar), element("dd", "", (100 * image[key]).toFixed(0)));
  }
  const where = `${image.dataset} · split ${image.split}`;
  const text = element("div", "card", element("b", "", image.image), element("p", "", where), ranks);
  text.title = `order ${arrows(image.order)}`;
  return element("li", "", place, text);
}

function drawGallery() {
  const [method, dataset] = [$("images-method").value, $("images-dataset").value];
  const shown = data.images.filter((i) => i.method === method && (dataset === ALL || i.dataset === dataset));
  $("gallery").replaceChildren(...shown.map(shot));
}

function startGallery() {
  $("images-controls").hidden = data.images.length === 0;
  $("images-note").textContent = data.images.length === 0
    ? "Not shown: this needs the predictions of runs of two or more tasks."
    : "Test images whose place among those of their data set went furthest from where people put it, from just after the "
      + "data set was learnt to the end of the run. Places from 0 (worst quality) to 100 (best); the 50 worst of each method.";
  options($("images-method"), unique(data.images.map((i) => i.method)).map((m) => [m, m]));
  options($("images-dataset"), [[ALL, "all"], ...unique(data.images.map((i) => i.dataset)).map((d) => [d, d])]);
  for (const id of ["images-method", "images-dataset"]) $(id).addEventListener("change", drawGallery);
  drawGallery();
}

function tellWide() { // a table that goes on beyond its box says so
  const boxes = [...document.querySelectorAll(".scroll")];
  const tell = () => { for (const box of boxes) box.previousElementSibling.hidden = box.scrollWidth <= box.clientWidth; };
  const watch = new ResizeObserver(tell);
  for (const box of boxes) watch.observe(box);
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", tell);
  tell();
}

async function loadPlotly() {
  const bytes = Uint8Array.from(atob($("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  $("plotly").remove();
}

async function start() {
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("thead button"))
    button.addEventListener("click", () => sortTable(button.parentNode));
  startGallery();
  tellWide();
  setTheme(false);
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    setTheme(true);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(true));
  try {
    await loadPlotly();
    startCharts();
  } catch (error) {
    $("failed").hidden = false;
    throw error;
  }
  document.documentElement.dataset.ready = "true";
}

addEventListener("DOMContentLoaded", start);
