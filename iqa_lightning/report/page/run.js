// One run, or the mean of the runs of a method in one order, step by step.
const runsOf = () => data.runs.filter((run) => run.method === $("method").value && run.order === $("order").value);
const splitName = (run) => `split ${run.split}, seed ${run.seed}`;

function chosenRun() { // with one matrix per kind: that of the run, or the mean over runs
  const all = runsOf(), one = $("split").value === ALL ? all : all.filter((run) => splitName(run) === $("split").value);
  const average = (pick) => {
    const [first, ...rest] = one.map(pick).filter(Boolean);
    return first?.map((row, t) => row.map((x, d) => Array.isArray(x)
      ? x.map((_, h) => mean([first, ...rest].map((m) => m[t][d][h]))) : mean([first, ...rest].map((m) => m[t][d]))));
  };
  const kind = (name, readout = $("readout").value) => average((run) => matrixOf(run, readout, name));
  return { ...one[0], count: one.length, kind, gate: average((run) => run.gate) };
}

function fillOrders(wanted) {
  options($("order"), unique(data.runs.filter((run) => run.method === $("method").value).map((run) => run.order)).map((o) => [o, arrows(o)]));
  fillSplits(wanted);
}

function fillSplits(wanted) {
  const runs = runsOf();
  options($("split"), [...(runs.length > 1 ? [[ALL, `mean of ${runs.length} runs`]] : []), ...runs.map((run) => [splitName(run), splitName(run)])]);
  options($("readout"), Object.keys(runs[0].readouts).map((r) => [r, r]), wanted);
  const last = runs[0].after.length - 1, atEnd = Number($("step").value) >= Number($("step").max);
  $("step").max = last;
  if (atEnd || Number($("step").value) > last) $("step").value = last;
}

// dark text on the bright half of the colour scale, at least 4.5 to 1
const inked = (words, value) => `<span style="color:${value > 0.45 ? "#000" : "#fff"}">${words}</span>`;

// an axis whose labels stay where no cell has a value
const places = (labels) => ({ tickvals: labels.map((_, i) => i), ticktext: labels, showgrid: false });

function drawHeat(id, values, run, t, label, bounds) {
  const rows = run.after.map(stepName), columns = run.datasets.map((name) => wrapped(name, 16));
  const z = values.map((row, i) => i <= t ? row : row.map(() => null));
  const cell = (x, i, d) => x === null ? "" : inked(i < run.learnt[d] ? `<i>${shown(x, 2)}</i>` : shown(x, 2), x);
  const tip = (x, i, d) => {
    const [low, high] = bounds ? [bounds[0][i][d], bounds[1][i][d]] : [null, null];
    return `${text(run.datasets[d])} after ${i ? text(run.after[i]) : "the start"}: ${shown(x)}${low === null ? "" : ` [${shown(low)}, ${shown(high)}]`}`;
  };
  const box = (d, i, color, width, inset) => ({
    type: "rect", x0: d - 0.5 + inset, x1: d + 0.5 - inset, y0: i - 0.5 + inset, y1: i + 0.5 - inset, line: { color, width },
  });
  const shapes = columns.map((_, d) => d).filter((d) => run.learnt[d] <= t && values[run.learnt[d]][d] !== null).map((d) => box(d, run.learnt[d], colour("ink"), 2.5, 0.03));
  draw(id, [{
    type: "heatmap", z, zmin: LOWEST, zmax: 1, colorscale: SCALE, showscale: false, xgap: 2, ygap: 2, hoverongaps: false,
    text: z.map((row, i) => row.map((x, d) => cell(x, i, d))), texttemplate: "%{text}", textfont: { size: 13 },
    hovertext: z.map((row, i) => row.map((x, d) => tip(x, i, d))), hovertemplate: "%{hovertext}<extra></extra>",
  }].filter(() => values.flat().some((x) => x !== null)), {
    height: 90 + 42 * rows.length, plot_bgcolor: colour("empty"), shapes, xaxis: { side: "top", ...places(columns), range: [-0.5, columns.length - 0.5] },
    yaxis: { ...places(rows), range: [rows.length - 0.5, -0.5], title: "after task" },
  }, `${label} ${t ? `after ${run.after[t]}` : "before training"}: ${run.datasets.map((d, i) => `${d} ${shown(z[t][i])}`).join(", ")}`);
}

function drawDatasets(id, run, values, t, label, bounds) {
  const traces = run.datasets.flatMap((name, d) => {
    const { color, symbol } = looks(run.datasets, name), first = run.learnt[d];
    const part = (from, to, dash, legend) => {
      const steps = run.after.map((_, i) => i).filter((i) => i >= from && i <= Math.min(to, t) && values[i]?.[d] != null);
      const error = bounds && steps.every((i) => bounds[0][i][d] !== null)
        ? bars(steps.map((i) => values[i][d]), steps.map((i) => bounds[0][i][d]), steps.map((i) => bounds[1][i][d]), color, 1, 3) : undefined;
      return {
        x: steps.map((i) => i + 0.05 * (d - run.datasets.length / 2)), y: steps.map((i) => values[i][d]), name: wrapped(name, letters(id, 0.8)), legendgroup: name, showlegend: legend || first > t,
        mode: "lines+markers", line: { color, width: 2, dash }, marker: { color, symbol: legend ? symbol : `${symbol}-open`, size: 8 }, error_y: error,
        customdata: steps.map((i) => text(run.after[i])), hovertemplate: `${text(name)}, after %{customdata}: %{y:.3f}<extra></extra>`,
      };
    };
    return [part(0, first, "dot", false), part(first, run.after.length, "solid", true)];
  });
  // of all steps, so that the slider does not move the axis
  const axis = ranged([values, ...(bounds ?? [])].flat(2).filter((x) => x !== null));
  draw(id, axis.range ? traces : [], { height: 340, xaxis: taskAxis(run.after), yaxis: { title: label, range: axis.range } }, `${label} of each data set after each task`);
  told(id, axis.told);
}

function drawGate(run, t) {
  const weights = run.gate?.[Math.max(t, 1) - 1], heads = run.after.slice(1);
  card("plot-gate").hidden = !weights;
  $("gate-note").textContent = "Mean weight that images of a data set (row) give to the head of a task (column) after this step; a row sums to 1. Brighter is more.";
  if (!weights) return;
  draw("plot-gate", [{
    type: "heatmap", z: weights, zmin: LOWEST, zmax: 1, colorscale: SCALE, showscale: false, xgap: 2, ygap: 2,
    text: weights.map((row) => row.map((x) => x === null ? "" : inked(shown(x, 2), x))), texttemplate: "%{text}", textfont: { size: 13 }, hoverongaps: false,
    hovertext: weights.map((row, i) => row.map((x, h) => `images of ${text(run.datasets[i])} to head ${text(heads[h])}: ${shown(x)}`)),
    hovertemplate: "%{hovertext}<extra></extra>",
  }], {
    height: 90 + 42 * run.datasets.length, plot_bgcolor: colour("empty"), xaxis: { side: "top", ...places(heads.map((head, h) => stepName(head, h + 1))), range: [-0.5, heads.length - 0.5], title: "head of task" },
    yaxis: { ...places(run.datasets.map((name) => wrapped(name, 16))), range: [run.datasets.length - 0.5, -0.5], title: "images of" },
  }, "Mean weight of each head on each data set");
}

function drawRun() {
  const run = chosenRun(), t = Number($("step").value), srcc = run.kind("srcc"), stability = run.kind("stability");
  const pair = (kind) => run.count > 1 ? null : [run.kind(`${kind}_low`), run.kind(`${kind}_high`)];
  $("step-name").textContent = t ? `${t} of ${run.after.length - 1}, after ${run.after[t]}` : "0, before any training";
  const learnt = lastLearnt(run, t), still = mean(learnt.map((d) => stability[t][d]));
  $("step-text").textContent = (run.count > 1 ? `Mean of ${run.count} runs. ` : "") + (learnt.length
    ? `Mean SRCC over the ${learnt.length} data set${learnt.length === 1 ? "" : "s"} learnt so far: ${shown(mean(learnt.map((d) => srcc[t][d])))}`
      + `${still === null ? "" : `; mean stability: ${shown(still)}`}. Higher is better.` : "Nothing is learnt yet: all cells are zero-shot.");
  drawHeat("plot-srcc", srcc, run, t, "SRCC", pair("srcc"));
  drawHeat("plot-stability", stability, run, t, "Stability", pair("stability"));
  drawDatasets("plot-datasets", run, srcc, t, "SRCC", pair("srcc"));
  const [oracle, gated] = [run.kind("srcc", "oracle"), run.kind("srcc", "gated")];
  for (const figure of document.querySelectorAll("[data-gate]")) figure.hidden = !(oracle && gated);
  if (!(oracle && gated)) return;
  const regret = oracle.map((row, i) => row.map((x, d) => i < run.learnt[d] || x === null || gated[i][d] === null ? null : x - gated[i][d]));
  drawDatasets("plot-regret", run, regret, t, "regret", null);
  drawGate(run, t);
}

function startRun() {
  options($("method"), unique(data.runs.map((run) => run.method)).map((m) => [m, m]));
  $("step").max = $("step").value = 0;
  const usual = () => data.readouts[$("method").value];
  fillOrders(usual());
  $("method").addEventListener("change", () => { fillOrders(usual()); drawRun(); });
  $("order").addEventListener("change", () => { fillSplits(); drawRun(); });
  for (const id of ["split", "readout"]) $(id).addEventListener("change", drawRun);
  $("step").addEventListener("input", drawRun);
}
