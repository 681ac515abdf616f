// The linked views of a front: one table of candidates, drawn in all of them. The server sends rows that changed, and a bit for
// each candidate that fits the budgets; nothing else travels.
"use strict";
(() => {
  const VIEWS = { "size-speed": ["size_bytes", "speedup"], "size-quality": ["size_bytes", "psnr_db"], "speed-quality": ["speedup", "psnr_db"] };
  const SPACE = ["size_bytes", "speedup", "psnr_db"];
  const SYMBOLS = { reference: "star", uniform: "diamond", polished: "triangle-up", student: "square", search: "circle" };
  const SIZES = { reference: 15, uniform: 11, polished: 11, student: 9, search: 8 };
  const ACCENT = "#0b6b74", INK = "#1c2430", GREY = "#8a949f";
  const BASES = ["#0b6b74", "#b4551d", "#5a4fa3", "#8a6d00", "#a8326e", "#3d7a2a", "#1f5fa8", "#555f6b"];
  const SCALE = [[0, "#f0b429"], [0.5, "#2f9aa0"], [1, "#1b2f6b"]];
  const FAINT = 0.13;
  const MANY = 2000;       // candidates, as in figures.py
  const MOST_LINES = 1000; // of parallel coordinates, beside the front's

  let table = new Map();   // by trial number
  let front = new Set();
  let fits = null;         // a bit a trial number; null: all fit
  let colours = null;      // { values: by trial number, names: whether they stand for bases } or null
  let chosen = { a: null, b: null };

  const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
  const fixed = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
  function size(bytes) {
    for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
      if (bytes >= factor) { const v = bytes / factor; return `${v.toFixed(v >= 100 ? 0 : v >= 10 ? 1 : 2)} ${unit}`; }
    return `${Math.round(bytes)} B`;
  }
  const fit = number => fits === null || number >= 8 * fits.length || (fits[number >> 3] >> (number & 7) & 1) === 1;

  function hover(row) {
    const label = row.label ? ` · ${escape(row.label)}` : "";
    const speed = row.state === "predicted" ? "predicted" : `${fixed(row.speedup_low, 2)}–${fixed(row.speedup_high, 2)}`;
    return `<b>trial ${row.trial}</b>${label}<br>${size(row.size_bytes)}<br>${fixed(row.speedup, 2)}× (${speed})<br>${fixed(row.psnr_db, 2)} dB`;
  }

  function take(news) {
    if (news.from === 0) { // another run, or the first time
      table = new Map();
      fits = colours = null;
      chosen = { a: null, b: null };
    }
    const columns = Object.keys(news.rows);
    news.rows.trial.forEach((number, i) => table.set(number, Object.fromEntries(columns.map(name => [name, news.rows[name][i]]))));
    for (const number of news.gone) table.delete(number);
    front = new Set(news.front);
  }

  function colour(rows, usual) {
    if (!colours) return { color: rows.map(row => row.kind === "reference" ? INK : usual), showscale: false };
    if (colours.names) return { color: rows.map(row => BASES[colours.values[row.trial] % BASES.length] || GREY), showscale: false };
    const known = colours.values.filter(value => value !== null && value !== undefined);
    return { color: rows.map(row => colours.values[row.trial] ?? null), colorscale: SCALE, cmin: Math.min(...known), cmax: Math.max(...known), showscale: false };
  }

  const able = row => fit(row.trial) && row.feasible;

  // Many points are alike but for their colour: to give each a size, a symbol and an opacity of its own takes a browser long.
  function marker(rows, usual, opacity, many) {
    if (many) return Object.assign(rows.length && colours ? colour(rows, usual) : { color: usual }, { symbol: "circle", size: 6, opacity, line: { width: 0 } });
    return Object.assign(colour(rows, usual), {
      symbol: rows.map(row => SYMBOLS[row.kind] + (row.state === "predicted" ? "-open" : "")),
      size: rows.map(row => SIZES[row.kind]),
      opacity: rows.map(row => able(row) || row.kind === "reference" ? 1 : FAINT),
      line: { width: 1, color: "white" },
    });
  }

  function bars(rows, usual) {
    const reach = (bound, sign) => rows.map(row => row[bound] === null || !able(row) ? 0 : Math.max(0, sign * (row[bound] - row.speedup)));
    return { type: "data", array: reach("speedup_high", 1), arrayminus: reach("speedup_low", -1), color: usual, thickness: 1, width: 2 };
  }

  const plot = id => document.getElementById(id)?.querySelector(".js-plotly-plot");
  const isMany = () => table.size > MANY;
  function parts() { // what does not fit, what does, and what is on the front or to be found again
    const groups = [[], [], []];
    for (const row of table.values())
      groups[front.has(row.trial) || row.kind === "reference" || row.kind === "uniform" ? 2 : able(row) ? 1 : 0].push(row);
    return groups;
  }

  function drawView(name, groups) {
    const div = plot(name), [x, y] = VIEWS[name];
    if (!div) return false;
    groups.forEach((rows, i) => {
      const usual = i === 2 ? ACCENT : GREY;
      Object.assign(div.data[i], {
        x: rows.map(row => row[x]), y: rows.map(row => row[y]), customdata: rows.map(row => row.trial), hovertext: rows.map(hover),
        marker: marker(rows, usual, i ? 1 : FAINT, isMany() && i < 2),
      });
      if (i === 2) for (const [axis, bar] of [[x, "error_x"], [y, "error_y"]]) if (axis === "speedup") div.data[i][bar] = bars(rows, usual);
    });
    const ring = div.data[3], rings = [chosen.a, chosen.b].map(number => table.get(number)).filter(Boolean);
    Object.assign(ring, { x: rings.map(row => row[x]), y: rings.map(row => row[y]) });
    redraw(div);
    return true;
  }

  const open = div => div && div.closest("details").open;
  function drawSpace(groups) {
    const div = plot("space");
    if (!open(div)) return;
    const marked = groups[2].filter(able);
    const sets = [[...groups[0], ...groups[2].filter(row => !able(row))], groups[1], marked];
    sets.forEach((rows, i) => {
      const [x, y, z] = SPACE.map(axis => rows.map(row => row[axis]));
      Object.assign(div.data[i], { x, y, z, customdata: rows.map(row => row.trial), hovertext: rows.map(hover) });
      Object.assign(div.data[i].marker, i && colours ? colour(rows, GREY) : { color: i === 2 ? ACCENT : GREY });
    });
    redraw(div);
  }

  function drawParallel() {
    const div = plot("parallel");
    if (!open(div)) return;
    const names = JSON.parse(div.closest("[data-columns]").dataset.columns);
    const known = [...table.values()].filter(row => names.every(name => row[name] !== null));
    const step = Math.ceil(known.length / MOST_LINES);
    const rows = known.filter((row, i) => i % step === 0 || front.has(row.trial));
    div.data[0].dimensions.forEach((dimension, i) => {
      const all = known.map(row => row[names[i]]), low = Math.min(...all), high = Math.max(...all);
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
    const groups = parts();
    const done = what.includes("views") ? Object.keys(VIEWS).map(name => drawView(name, groups)) : [];
    if (what.includes("space")) drawSpace(groups);
    if (what.includes("parallel")) drawParallel();
    document.body.dataset.candidates = table.size;
    for (const line of document.querySelectorAll("tr[data-trial]")) {
      const number = Number(line.dataset.trial);
      line.classList.toggle("selected", number === chosen.a);
      line.classList.toggle("unfit", !fit(number) || table.get(number)?.feasible === false);
    }
    if (done.includes(false)) setTimeout(() => draw(what), 60); // the page is not all there yet
  }

  function unpacked(text) {
    if (text === null || text === undefined) return null;
    return Uint8Array.from(atob(text), c => c.charCodeAt(0));
  }

  function save(clicks, kind) {
    for (const name of clicks ? Object.keys(VIEWS) : []) {
      const div = plot(name);
      if (div) window.Plotly.downloadImage(div, { format: kind, filename: name, width: 900, height: 640, scale: kind === "png" ? 2 : 1 });
    }
    return window.dash_clientside.no_update;
  }
  document.addEventListener("change", event => {
    const store = event.target.dataset?.store;
    if (store) window.dash_clientside.set_props(store, { data: event.target.value });
  });
  const clicked = clicks => window.dash_clientside.callback_context.triggered_id && clicks.some(Boolean) && window.dash_clientside.callback_context.triggered[0]?.value;

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    board: {
      news(news) {
        if (!news) return window.dash_clientside.no_update;
        take(news);
        draw();
        return news.version;
      },
      mask(mask) {
        const before = new Map([...table.keys()].map(number => [number, fit(number)]));
        fits = mask ? unpacked(mask.bits) : null;
        if ([...before].some(([number, fitted]) => fit(number) !== fitted)) draw(["views", "space"]);
        return mask ? mask.text : "";
      },
      colour(found) {
        if (found || colours) draw(["views", "space"]);
        colours = found || null;
        return window.dash_clientside.no_update;
      },
      chosen(a, b) { chosen = { a, b: b === null || b === undefined ? null : Number(b) }; draw(["views"]); return window.dash_clientside.no_update; },
      image(clicks) { return clicked(clicks) ? window.dash_clientside.callback_context.triggered_id.image : window.dash_clientside.no_update; },
      free() { return [100, 100, 0, 100]; },
      opened() { setTimeout(() => draw(["space", "parallel"]), 30); return window.dash_clientside.no_update; },
      clicked() {
        const context = window.dash_clientside.callback_context, value = context.triggered[0]?.value;
        const number = context.triggered_id === "go" ? value
          : typeof context.triggered_id === "object" && value ? context.triggered_id.trial : value?.points?.[0]?.customdata;
        return number === undefined || number === null ? window.dash_clientside.no_update : Number(number);
      },
      brushed() {
        const div = plot("parallel");
        if (!div) return window.dash_clientside.no_update;
        const names = JSON.parse(div.closest("[data-columns]").dataset.columns);
        const ranges = {};
        div.data[0].dimensions.forEach((dimension, i) => {
          const range = dimension.constraintrange;
          if (range && range.length) ranges[names[i]] = Array.isArray(range[0]) ? range : [range];
        });
        return ranges;
      },
      png: clicks => save(clicks, "png"),
      svg: clicks => save(clicks, "svg"),
    },
  });
})();
