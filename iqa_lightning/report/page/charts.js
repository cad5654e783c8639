// Charts: each function draws one from `data` and the controls. Plotly's texts take markup, so names go through text().
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const LOWEST = -0.05; // of the colour scale: all that is negative has one colour of its own
const ZERO = -LOWEST / (1 - LOWEST);
const SCALE = [[0, "#8c3b4a"], [ZERO, "#8c3b4a"], ...VIRIDIS.map((c, i) => [ZERO + (1 - ZERO) * (i + 1e-6) / 9.00001, c])];
SCALE[SCALE.length - 1][0] = 1;
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down"];
const methods = unique(data.lines.map((line) => line.method));

const text = (name) => String(name).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const shown = (value, digits = 3) => value === null || value === undefined ? "-"
  : Math.abs(value) >= 1e4 ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : value.toFixed(digits);
const mean = (list) => { const real = list.filter((x) => x !== null); return real.length ? real.reduce((a, b) => a + b) / real.length : null; };
const looks = (names, name) => { const i = Math.max(0, names.indexOf(name)); return { color: colour(`c${i % 8}`), symbol: SYMBOLS[i % 8] }; };

function layout(extra) {
  const axis = { gridcolor: colour("line"), zeroline: false, automargin: true, linecolor: colour("line"), fixedrange: true };
  const { xaxis, yaxis, ...rest } = extra, small = { size: 12, color: colour("dim") };
  const full = (own) => ({ ...axis, ...own, ...(own?.title ? { title: { text: own.title, font: small, standoff: 8 } } : {}) });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: 320, margin: { l: 8, r: 12, t: 8, b: 8 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", x: 0, y: 1.03, yanchor: "bottom", font: { size: 12 } }, dragmode: false,
    xaxis: full(xaxis), yaxis: full(yaxis), ...rest,
  };
}

// An axis that holds all values with room for their marks and is never narrower than NARROWEST, so that
// a difference of a thousandth does not fill the height; where it shows a part of 0 to 1, `told` says which.
const NARROWEST = 0.1;

function ranged(values) {
  const real = values.flat().filter((x) => Number.isFinite(x));
  if (!real.length) return {};
  let [low, high] = [Math.min(...real), Math.max(...real)];
  const room = Math.max(NARROWEST - (high - low), 0) / 2 + 0.05 * Math.max(high - low, NARROWEST);
  [low, high] = [low - room, high + room];
  return { range: [low, high], told: low <= 0 && high >= 1 ? "" : `The axis shows ${shown(low, 2)} to ${shown(high, 2)}.` };
}

// how many letters fit into a share of a chart's width
const letters = (id, share) => Math.max(10, Math.floor(share * ((card(id).clientWidth || 600) - 40) / 8));

// a name in lines of so many letters, broken where its parts end if that will do
function wrapped(name, most) {
  const lines = [""];
  for (const part of String(name).match(/[^,@+ ]*[,@+ ]|[^,@+ ]+$/g) ?? []) {
    const pieces = part.match(new RegExp(`.{1,${most}}`, "gu")) ?? [];
    for (const piece of pieces) {
      if (lines.at(-1).length + piece.length <= most) lines[lines.length - 1] += piece;
      else lines.push(piece);
    }
  }
  return lines.filter((line) => line).map(text).join("<br>");
}

const deep = (label) => 20 + 16 * label.split("<br>").length; // pixels of a row with such a label

const told = (id, text) => { $(`${id}-axis`).textContent = text ?? ""; };
const card = (id) => $(id).closest("figure");

// bars of an interval, none of them negative
const bars = (values, low, high, color, thickness, width) => ({
  type: "data", symmetric: false, color, thickness, width,
  array: values.map((x, i) => Math.max((high[i] ?? x) - x, 0)), arrayminus: values.map((x, i) => Math.max(x - (low[i] ?? x), 0)),
});

function draw(id, traces, extra, label) {
  card(id).hidden = !traces.length;
  if (!traces.length) return;
  Plotly.react($(id), traces, layout(extra), { responsive: true, displayModeBar: false });
  $(id).setAttribute("role", "img");
  $(id).setAttribute("aria-label", label);
}

function drawMeans() {
  const key = $("measure").value, { label } = data.measures[key];
  const lines = data.lines.filter((line) => line.measure === key && line.mean !== null);
  const name = (line) => wrapped(`${line.method} · ${line.readout}`, letters("plot-means", 0.4));
  const traces = lines.map((line) => {
    const { color, symbol } = looks(methods, line.method);
    const interval = line.low === null ? "" : ` [${shown(line.low)}, ${shown(line.high)}]`;
    return {
      x: [line.mean], y: [name(line)], mode: "markers", showlegend: false,
      marker: { color, symbol: symbol + (line.readout === "oracle" ? "-open" : ""), size: 10, line: { width: 2, color } },
      error_x: line.low === null ? undefined
        : bars([line.mean], [line.low], [line.high], color, 2, 4),
      hovertemplate: `${name(line)}<br>${text(label)} ${shown(line.mean)}${interval}${{ splits: " over splits", images: " of image sampling" }[line.interval] ?? ""}<br>${line.splits} split${line.splits === 1 ? "" : "s"}, ${line.n} run${line.n === 1 ? "" : "s"}<extra></extra>`,
    };
  });
  const yaxis = { autorange: "reversed", showgrid: false };
  const axis = data.measures[key].cost ? {} : ranged(lines.flatMap((line) => [line.mean, line.low, line.high]).filter((x) => x !== null));
  draw("plot-means", traces, { height: 70 + lines.reduce((sum, line) => sum + deep(name(line)), 0), xaxis: { title: text(label), range: axis.range }, yaxis }, `${label}, mean and interval of each method`);
  told("plot-means", axis.told);
  const said = data.measures[key].lower ? "Lower is better." : "Higher is better.";
  for (const span of document.querySelectorAll("[data-direction]")) span.textContent = said;
}

function drawRanks() {
  const key = $("measure").value, found = data.ranks[key], { label } = data.measures[key];
  card("plot-ranks").hidden = !found;
  $("ranks-note").textContent = !data.tested.includes(key) ? `Tests are made on ${data.tested.map((k) => data.measures[k].label).join(", ")}.`
    : !found ? "There is no split on which two or more methods were run."
    : `Average rank by ${label} over ${found.splits} split${found.splits === 1 ? "" : "s"} that all methods share, orders and seeds averaged; 1 is best. `
      + (found.splits < 5 ? "No test is made below five splits, so nothing is said to differ."
        : "Dots on a bar: methods that the tests over splits do not tell apart.")
      + methods.filter((method) => !found.methods.includes(method)).map((method) => ` ${method} is left out: too few splits, or constant by construction.`).join("");
  if (!found) return;
  const count = found.methods.length, rows = found.groups.length;
  const joined = found.groups.map((group, i) => ({
    x: group.map((place) => found.ranks[place]), y: group.map(() => -0.5 - 0.45 * i), mode: "lines+markers", showlegend: false,
    line: { color: colour("ink"), width: 2 }, marker: { color: colour("ink"), size: 7 }, hoverinfo: "skip",
  }));
  const shapes = [];
  found.methods.forEach((_, i) => shapes.push({
    type: "line", x0: found.ranks[i], x1: found.ranks[i], y0: -0.5 - 0.45 * rows, y1: -1.2 - 0.45 * rows - i, layer: "below",
    line: { color: colour("line"), width: 1.5 },
  }));
  const shortName = (method) => wrapped(method, letters("plot-ranks", 0.4));
  const traces = found.methods.map((method, i) => {
    const { color, symbol } = looks(methods, method), left = found.ranks[i] > (count + 1) / 2;
    return {
      x: [found.ranks[i]], y: [-1.2 - 0.45 * rows - i], mode: "markers+text", showlegend: false, cliponaxis: false,
      text: [shortName(method).split("<br>").map((line) => left ? `${line}  ` : `  ${line}`).join("<br>")], textposition: left ? "middle left" : "middle right",
      marker: { color, symbol, size: 10 }, hovertemplate: `${text(method)}: average rank ${shown(found.ranks[i], 2)}<extra></extra>`,
    };
  });
  draw("plot-ranks", [...joined, ...traces], {
    height: 90 + found.methods.reduce((sum, method) => sum + Math.max(30, deep(shortName(method))), 0) + 14 * rows, shapes, margin: { l: 12, r: 12, t: 48, b: Math.max(...found.methods.map((method) => deep(shortName(method)))) / 2 },
    xaxis: { side: "top", range: [0.8, count + 0.2], dtick: 1, title: "average rank (1 is best)", showgrid: false, ticks: "outside" },
    yaxis: { visible: false, range: [-1.7 - 0.45 * rows - (count - 1), 0] },
  }, `Average ranks: ${found.methods.map((m, i) => `${m} ${shown(found.ranks[i], 2)}`).join(", ")}`);
}

function drawOrders() {
  const key = $("measure").value, { label } = data.measures[key];
  const orders = unique(data.values.map((run) => run.order)), several = orders.length > 1;
  const spread = [];
  const traces = methods.filter((method) => data.values.some((run) => run.method === method && key in run)).map((method) => {
    const runs = data.values.filter((run) => run.method === method && key in run);
    const points = several
      ? orders.map((order) => [arrows(order), mean(runs.filter((run) => run.order === order).map((run) => run[key]))])
      : runs.map((run) => [`split ${run.split}, seed ${run.seed}`, run[key]]);
    const real = points.filter(([, value]) => value !== null).sort(([, a], [, b]) => a - b), heights = real.map(([, value]) => value);
    const { color, symbol } = looks(methods, method);
    if (heights.length > 1) spread.push(`${method} ${shown(Math.max(...heights) - Math.min(...heights))}`);
    return {
      y: heights.map(() => wrapped(method, letters("plot-orders", 0.4))), x: heights, text: real.map(([name]) => text(name)), mode: "lines+markers", showlegend: false,
      marker: { color, symbol, size: 9, opacity: 0.8 }, line: { width: 2, color: colour("line") },
      hovertemplate: `${text(method)} (${text(data.readouts[method])})<br>%{text}<br>${text(label)} %{x:.3f}<extra></extra>`,
    };
  });
  const lengths = spread.length ? ` From lowest to highest: ${spread.join(", ")}.` : "";
  $("orders-title").textContent = several ? "Spread over task orders" : "Spread over runs";
  $("orders-note").textContent = (several
    ? `A point is one of ${orders.length} orders, the mean of its runs.`
    : `All runs share one order (${arrows(orders[0])}), so a point is a run.`) + lengths;
  const axis = data.measures[key].cost ? {} : ranged(traces.map((trace) => trace.x));
  // one point each has no spread, and the means are in another card
  draw("plot-orders", spread.length ? traces : [], {
    height: 80 + traces.reduce((sum, trace) => sum + deep(trace.y[0] ?? ""), 0), xaxis: { title: text(label), range: axis.range }, yaxis: { autorange: "reversed", showgrid: false },
  }, $("orders-note").textContent);
  told("plot-orders", axis.told);
}

const matrixOf = (run, readout, kind) => run.readouts[readout]?.[kind];
const lastLearnt = (run, t) => run.datasets.map((_, d) => d).filter((d) => run.learnt[d] <= t);

function drawCurves() {
  const [dataset, order] = [$("curve-dataset").value, $("curve-order").value];
  const runs = data.runs.filter((run) => run.order === order);
  const height = (run, readout, t) => dataset === ALL
    ? mean(lastLearnt(run, t).map((d) => matrixOf(run, readout, "srcc")[t][d])) : matrixOf(run, readout, "srcc")[t][run.datasets.indexOf(dataset)];
  const traces = methods.filter((method) => runs.some((run) => run.method === method)).map((method, i) => {
    const mine = runs.filter((run) => run.method === method), readout = data.readouts[method];
    const rows = mine[0].after.map((_, t) => mine.map((run) => height(run, readout, t)).filter((x) => x !== null && x !== undefined));
    const y = rows.map((row) => mean(row)), { color, symbol } = looks(methods, method);
    const bound = (kind, t) => matrixOf(mine[0], readout, kind)[t][mine[0].datasets.indexOf(dataset)] ?? y[t];
    const high = rows.map((row, t) => mine.length > 1 ? Math.max(...row) : dataset === ALL ? y[t] : bound("srcc_high", t));
    const low = rows.map((row, t) => mine.length > 1 ? Math.min(...row) : dataset === ALL ? y[t] : bound("srcc_low", t));
    return {
      x: y.map((_, t) => t + 0.05 * (i - 2)), y, name: wrapped(`${method} (${readout})`, letters("plot-curves", 0.8)), mode: "lines+markers", line: { color, width: 2 }, marker: { color, symbol, size: 8 },
      error_y: bars(y, low, high, color, 1, 3), ends: [low, high],
      customdata: mine[0].after.map(text),
      hovertemplate: `${text(method)}, after %{customdata}<br>SRCC %{y:.3f} (${mine.length} run${mine.length === 1 ? "" : "s"})<extra></extra>`,
    };
  });
  const axis = ranged(traces.flatMap(({ y, ends }) => [y, ...ends]));
  draw("plot-curves", traces.map(({ ends, ...trace }) => trace), { height: 400, xaxis: taskAxis(runs[0].after), yaxis: { title: "SRCC", range: axis.range } },
    `SRCC after each task of ${dataset === ALL ? "the data sets learnt so far" : dataset}`);
  told("plot-curves", axis.told);
}

function stepName(task, t) { // a joint task by the number of its data sets
  const sets = task.split("+").length;
  return t ? `${t} ${sets > 1 ? `joint (${sets})` : wrapped(task, 16)}` : "start";
}

function taskAxis(after) {
  return { tickvals: after.map((_, t) => t), ticktext: after.map(stepName), title: "after task", showgrid: false, range: [-0.3, after.length - 0.7] };
}

function drawCost() {
  const key = $("cost-measure").value, of = (method, measure) => data.lines.find((line) =>
    line.method === method && line.readout === data.readouts[method] && line.measure === measure)?.mean ?? null;
  const traces = methods.map((method) => ({ method, x: of(method, key), y: of(method, "msrcc"), ...looks(methods, method) }))
    .filter(({ x, y }) => x !== null && y !== null).map(({ method, x, y, color, symbol }) => ({
      x: [x], y: [y], name: wrapped(method, letters("plot-cost", 0.8)), mode: "markers", marker: { color, symbol, size: 13 },
      hovertemplate: `${text(method)}<br>${text(data.measures[key].label)} ${shown(x, 0)}<br>mSRCC ${shown(y)}<extra></extra>`,
    }));
  const axis = ranged(traces.map((trace) => trace.y));
  draw("plot-cost", traces, { xaxis: { title: text(data.measures[key].label), rangemode: "tozero" }, yaxis: { title: "mSRCC", range: axis.range } },
    `Final mSRCC against ${data.measures[key].label}`);
  told("plot-cost", axis.told);
}

function drawAll() {
  for (const action of [drawMeans, drawRanks, drawOrders, drawCurves, drawCost, drawRun]) action();
}

function startCharts() {
  const labels = Object.entries(data.measures).map(([key, { label, lower, cost }]) => [key, cost ? label : `${label} ${lower ? "↓" : "↑"}`]);
  options($("measure"), labels);
  options($("cost-measure"), labels.filter(([key]) => data.measures[key].cost));
  options($("curve-dataset"), [[ALL, "mean of those learnt so far"], ...unique(data.runs.flatMap((run) => run.datasets)).map((d) => [d, d])]);
  const tasks = (order) => order.split(">").length;
  const orders = unique(data.runs.map((run) => run.order)).sort((a, b) => tasks(b) - tasks(a)); // joint learning last
  options($("curve-order"), orders.map((order) => [order, arrows(order)]));
  for (const action of [drawMeans, drawRanks, drawOrders]) $("measure").addEventListener("change", action);
  for (const id of ["curve-dataset", "curve-order"]) $(id).addEventListener("change", drawCurves);
  $("cost-measure").addEventListener("change", drawCost);
  startRun();
  drawAll();
}
