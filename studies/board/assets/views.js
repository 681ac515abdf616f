// The linked views of a front (axes by Plotly, points on a canvas), and what the page answers by itself.
"use strict";
(() => {
  const board = window.slimfront;
  const views = () => [...document.querySelectorAll(".plot[data-view]")].map(({ dataset }) => dataset.view); // of the page, by name
  const SPACE = ["size_bytes", "speedup", "psnr_db"];
  const SYMBOLS = { reference: "star", uniform: "diamond", polished: "triangle-up", student: "square", search: "circle" };
  const SIZES = { reference: 15, uniform: 11, polished: 11, student: 9, search: 8 };
  const FAINT = 0.13;
  const LOOK_MS = 2000;    // from one look for news to the next,
  const BUSY_MS = 5000;    // where there was some: a search that times its candidates is not to be disturbed often
  const DENSE = 2000;      // candidates, from which those beside the front are drawn smaller
  const ROOM = 0.06;       // beside the outermost points, a part of an axis
  const MOST_LINES = 1000; // of parallel coordinates, beside the front's

  let chosen = { a: null, b: null };

  const fixed = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
  function size(bytes) {
    for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
      if (bytes >= factor) { const v = bytes / factor; return `${v.toFixed(v >= 100 ? 0 : v >= 10 ? 1 : 2)} ${unit}`; }
    return `${Math.round(bytes)} B`;
  }

  board.hover = row => {
    const label = row.label ? ` · ${board.escape(row.label)}` : "";
    const speed = row.state === "predicted" ? "predicted" : `${fixed(row.speedup_low, 2)}–${fixed(row.speedup_high, 2)}`;
    return `<b>trial ${row.trial}</b>${label}<br>${size(row.size_bytes)}<br>${fixed(row.speedup, 2)}× (${speed})<br>${fixed(row.psnr_db, 2)} dB${further(row)}`;
  };

  // Returns what is known of a candidate's further objectives, whose titles the page tells.
  function further(row) {
    const titles = JSON.parse(document.querySelector(".views[data-further]")?.dataset.further ?? "{}");
    const known = Object.entries(titles).filter(([name]) => row[name] !== null && row[name] !== undefined);
    return known.map(([name, title]) => `<br>${board.escape(title)} ${Number(row[name].toPrecision(4))}`).join("");
  }

  const isMarked = row => board.onFront(row) || row.kind === "reference" || row.kind === "uniform";
  const opacity = row => board.able(row) || row.kind === "reference" ? 1 : FAINT;
  const plot = id => document.getElementById(id)?.querySelector(".js-plotly-plot");

  function point(row, x, y, dense) {
    const marked = isMarked(row), made = {
      row, x: row[x], y: row[y], level: marked ? 1 : 0, symbol: SYMBOLS[row.kind], size: SIZES[row.kind] - (dense && !marked ? 3 : 0),
      color: board.colour(row), opacity: opacity(row), open: row.state === "predicted",
    };
    if (marked && board.able(row) && (x === "speedup" || y === "speedup") && row.speedup_low !== null && row.speedup_high !== null)
      made.bar = { axis: x === "speedup" ? "x" : "y", low: row.speedup_low, high: row.speedup_high };
    return made;
  }

  function ends(rows, axis) {
    const known = rows.map(row => row[axis]).filter(value => value !== null);
    return known.length ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : [];
  }

  // Returns the ends of an axis, with room for the points and the intervals there; of sizes in powers of ten.
  function span(rows, axis) {
    const log = axis === "size_bytes", barred = axis === "speedup" ? rows.filter(isMarked) : [];
    const all = [ends(rows, axis), ends(barred, "speedup_low"), ends(barred, "speedup_high")].flat();
    const [low, high] = all.length ? [Math.min(...all), Math.max(...all)].map(value => log ? Math.log10(value) : value) : [1, 1];
    const room = ROOM * (high - low) || 0.5;
    return { low: low - room, high: high + room, log };
  }

  function drawView(name, rows) {
    const holder = document.getElementById(`${name}-plot`), { x, y } = holder.dataset;
    const points = rows.filter(row => row[x] !== null && row[y] !== null).map(row => point(row, x, y, rows.length > DENSE));
    holder.spans = { x: span(rows, x), y: span(rows, y) };
    board.cloud.show(holder, points, [chosen.a, chosen.b].map(board.row).filter(Boolean));
    ruled(holder, name);
  }

  // Gives a view's figure its axes, as soon as it is there; an axis that the user has zoomed stays until it is told to show all.
  function ruled(holder, name) {
    const div = plot(name), full = div?._fullLayout;
    if (!full) {
      holder.waits ??= setTimeout(() => { delete holder.waits; ruled(holder, name); }, 60);
      return;
    }
    if (!holder.ruled) div.on("plotly_afterplot", () => { rule(holder, div); board.cloud.paint(holder); });
    holder.ruled ??= {};
    rule(holder, div);
  }

  function rule(holder, div) {
    const change = {};
    for (const axis of ["xaxis", "yaxis"]) {
      const { low, high } = holder.spans[axis[0]], { range, autorange } = div._fullLayout[axis], given = holder.ruled[axis];
      if (!autorange && given && !alike(range, given)) continue; // it is zoomed
      if (!autorange && alike(range, [low, high])) continue;
      Object.assign(change, { [`${axis}.range`]: [low, high], [`${axis}.autorange`]: false });
      holder.ruled[axis] = [low, high];
    }
    if (holder.spans.x.log) {
      const ticks = sizeTicks(...(change["xaxis.range"] ?? div._fullLayout.xaxis.range));
      if (ticks.join() !== holder.ticks?.join()) Object.assign(change, { "xaxis.tickvals": ticks, "xaxis.ticktext": ticks.map(tickText) });
      holder.ticks = ticks;
    }
    if (Object.keys(change).length) window.Plotly.relayout(div, change);
  }

  // Returns round sizes between two powers of ten, so many that their texts have room.
  function sizeTicks(low, high) {
    const digits = high - low < 1.5 ? [1, 2, 5] : high - low < 3.5 ? [1, 3] : [1], found = [];
    for (let power = Math.floor(low); power <= high; power++) found.push(...digits.map(digit => digit * 10 ** power));
    return found.filter(tick => Math.log10(tick) >= low && Math.log10(tick) <= high);
  }
  const tickText = bytes => size(bytes).replace(/\.0+(?= )/, "");
  const alike = (one, other) => one.every((value, i) => Math.abs(value - other[i]) <= 1e-6 * Math.abs(other[1] - other[0]));

  // Whether a figure that is made when it is looked at first is there; it is drawn as soon as it is.
  function open(div, part) {
    if (!div?.closest("details").open) return false;
    if (!div.data?.length) setTimeout(() => draw([part]), 60);
    return Boolean(div.data?.length);
  }

  function drawSpace(rows) {
    const div = plot("space");
    if (!open(div, "space")) return;
    const able = rows.filter(board.able);
    const sets = [rows.filter(row => !board.able(row)), able.filter(row => !isMarked(row)), able.filter(isMarked)];
    sets.forEach((rows, i) => {
      const [x, y, z] = SPACE.map(axis => rows.map(row => row[axis]));
      Object.assign(div.data[i], { x, y, z, customdata: rows.map(row => row.trial), hovertext: rows.map(board.hover) });
      div.data[i].marker.color = i ? rows.map(board.colour) : board.GREY;
    });
    redraw(div);
  }

  const axesOf = div => JSON.parse(div.closest("[data-columns]").dataset.columns);
  function drawParallel() {
    const div = plot("parallel");
    if (!open(div, "parallel")) return;
    const names = axesOf(div);
    const known = board.rows().filter(row => names.every(name => row[name] !== null));
    const step = Math.ceil(known.length / MOST_LINES);
    const rows = known.filter((row, i) => i % step === 0 || board.onFront(row));
    div.data[0].dimensions.forEach((dimension, i) => {
      const [low, high] = known.length ? ends(known, names[i]) : [0, 1];
      dimension.values = rows.map(row => row[names[i]]);
      dimension.range = high > low ? [low, high] : [low - 0.5, high + 0.5];
    });
    div.data[0].line.color = rows.map(row => row.psnr_db);
    redraw(div);
  }

  function redraw(div) {
    div.layout.datarevision = (div.layout.datarevision || 0) + 1;
    window.Plotly.react(div, div.data, div.layout);
  }

  const due = new Set();
  function draw(what = ["views", "space", "parallel"]) { // all that is asked for within a frame is drawn once
    if (due.size === 0) requestAnimationFrame(() => { const now = [...due]; due.clear(); drawNow(now); });
    what.forEach(part => due.add(part));
  }

  function drawNow(what) {
    const rows = board.rows();
    if (what.includes("views")) for (const name of views()) drawView(name, rows);
    if (what.includes("space")) drawSpace(rows);
    if (what.includes("parallel")) drawParallel();
    for (const line of document.querySelectorAll("tr[data-trial]")) {
      const number = Number(line.dataset.trial);
      line.classList.toggle("selected", number === chosen.a);
      line.classList.toggle("unfit", !board.fit(number) || board.row(number)?.feasible === false);
    }
    document.body.dataset.candidates = rows.length;
  }

  // Saves the views as they are seen, their points drawn by Plotly.
  function save(clicks, kind) {
    for (const name of clicks ? views() : []) {
      const div = plot(name);
      if (!div) continue;
      const points = div.closest(".plot").querySelector("canvas").points, all = key => points.map(point => point[key]);
      const marker = { symbol: points.map(({ symbol, open }) => symbol + (open ? "-open" : "")), size: all("size"), color: all("color"), opacity: all("opacity"), line: { width: 1, color: "white" } };
      const trace = { type: "scatter", mode: "markers", x: all("x"), y: all("y"), marker };
      const barred = points.filter(point => point.bar), axis = barred[0]?.bar.axis;
      const reach = barred.map(({ bar, ...point }) => [bar.high - point[axis], point[axis] - bar.low]);
      const bars = { type: "scatter", mode: "markers", x: barred.map(point => point.x), y: barred.map(point => point.y), marker: { opacity: 0 } };
      if (axis) bars[`error_${axis}`] = { type: "data", array: reach.map(([up]) => up), arrayminus: reach.map(([, down]) => down), color: board.ACCENT, thickness: 1, width: 2 };
      const layout = Object.assign({}, div.layout, { paper_bgcolor: "white", showlegend: false });
      window.Plotly.downloadImage({ data: [bars, trace], layout }, { format: kind, filename: name, width: 900, height: 640, scale: kind === "png" ? 2 : 1 });
    }
    return window.dash_clientside.no_update;
  }

  // Ranges of parallel axes, drawn or typed.
  function ranges(div) {
    const found = {};
    div.data[0].dimensions.forEach((dimension, i) => {
      const range = dimension.constraintrange;
      if (range && range.length) found[axesOf(div)[i]] = Array.isArray(range[0]) ? range : [range];
    });
    return found;
  }

  function typed() {
    const div = plot("parallel"), number = (column, end) => document.getElementById(`${column}-${end}`).valueAsNumber;
    axesOf(div).forEach((column, i) => {
      const [low, high] = [number(column, "low"), number(column, "high")];
      if (Number.isNaN(low) && Number.isNaN(high)) delete div.data[0].dimensions[i].constraintrange;
      else div.data[0].dimensions[i].constraintrange = [Number.isNaN(low) ? -1e300 : low, Number.isNaN(high) ? 1e300 : high];
    });
    redraw(div);
    refit();
  }

  let fitted = Promise.resolve(), latest = 0; // of the questions

  // Asks what fits the sliders and ranges as they are; a question that a later one has overtaken is not asked.
  function refit() {
    const turn = ++latest;
    fitted = fitted.then(async () => {
      const sliders = document.getElementById("budgets");
      if (turn !== latest || sliders === null) return;
      const positions = Object.fromEntries([...sliders.querySelectorAll("input")].map(slider => [slider.id, slider.value]));
      const drawn = plot("parallel");
      const answer = await board.fitting({ ...positions, budgets: sliders.dataset.budgets, ranges: JSON.stringify(drawn?.data.length ? ranges(drawn) : {}) });
      if (answer === null || !document.getElementById("left")) return;
      for (const [name, text] of Object.entries(answer.texts)) document.getElementById(`${name}-text`).textContent = text;
      document.getElementById("left").textContent = answer.left;
      if (answer.changed) draw(["views", "space"]);
    }).catch(error => window.dash_clientside.set_props("problem", { children: `this did not work: ${error.message}`, hidden: false }));
  }

  async function recolour() {
    const choice = document.getElementById("colour-choice"), legend = document.getElementById("colour-legend");
    if (choice === null) return;
    const key = await board.colourBy(choice.value).catch(error => board.escape(error.message));
    if (key === null || !legend.isConnected) return;
    if (key || legend.innerHTML) draw(["views", "space"]);
    legend.innerHTML = key;
  }

  let told = {}; // to the parts of the page that the server makes

  // Looks for news of the run that is shown. The server is asked for what it makes of them only where they change that.
  async function look() {
    const found = await board.follow().catch(() => ({ state: "the board does not answer", lost: true })); // the next look asks again
    const state = document.getElementById("state");
    if (found === null || state === null) return false;
    if (state.textContent !== found.state) state.textContent = found.state;
    if (found.lost) return false;
    if (found.changed) { draw(); refit(); recolour(); }
    for (const part of ["front", "reviewed"]) if (told[part] !== found[part]) window.dash_clientside.set_props(part, { data: told[part] = found[part] });
    return found.changed;
  }
  async function keepLooking() {
    const changed = !document.hidden && document.getElementById("state") && await look().catch(error => console.warn(error));
    setTimeout(keepLooking, changed ? BUSY_MS : LOOK_MS);
  }
  keepLooking();

  document.addEventListener("change", event => {
    const store = event.target.dataset?.store;
    if (store) window.dash_clientside.set_props(store, { data: event.target.value });
    if (event.target.id === "colour-choice") recolour();
    if (event.target.closest?.(".ranges")) typed();
  });
  document.addEventListener("input", event => { if (event.target.closest?.("#budgets")) refit(); });
  document.addEventListener("click", event => {
    if (event.target.id !== "free") return;
    for (const { key, free } of JSON.parse(document.getElementById("budgets").dataset.budgets)) document.getElementById(key).value = free;
    refit();
  });
  const clicked = clicks => window.dash_clientside.callback_context.triggered_id && clicks.some(Boolean) && window.dash_clientside.callback_context.triggered[0]?.value;

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    board: {
      follow(run) {
        if (document.getElementById("state")) { board.open(run); told = {}; look(); }
        return window.dash_clientside.no_update;
      },
      chosen(a, b) { chosen = { a, b: b === null || b === undefined ? null : Number(b) }; draw(["views"]); return window.dash_clientside.no_update; },
      image(clicks) { return clicked(clicks) ? window.dash_clientside.callback_context.triggered_id.image : window.dash_clientside.no_update; },
      opened(clicks, figure) { // what needs WebGL is there from when it is looked at
        setTimeout(() => draw(["space", "parallel"]), 30);
        return clicks === 1 ? figure : window.dash_clientside.no_update;
      },
      clicked() {
        const context = window.dash_clientside.callback_context, value = context.triggered[0]?.value;
        const number = context.triggered_id === "go" ? value
          : typeof context.triggered_id === "object" && value ? context.triggered_id.trial : value?.points?.[0]?.customdata;
        return number === undefined || number === null ? window.dash_clientside.no_update : Number(number);
      },
      brushed() { refit(); return window.dash_clientside.no_update; },
      png: clicks => save(clicks, "png"),
      svg: clicks => save(clicks, "svg"),
    },
  });
})();
