// What the page knows of the candidates: rows by trial number, which of them fit the budgets, and a colour for each. The server
// sends rows and values that changed, and a bit for each candidate that fits.
"use strict";
window.slimfront = (() => {
  const ACCENT = "#0b6b74", INK = "#1c2430", GREY = "#8a949f";
  const BASES = ["#0b6b74", "#b4551d", "#5a4fa3", "#8a6d00", "#a8326e", "#3d7a2a", "#1f5fa8", "#555f6b"];
  const SCALE = [[240, 180, 41], [47, 154, 160], [27, 47, 107]]; // from the least to the most
  const PLAIN = "plain";
  const STEPS = 64;

  // The run that a page begins with is asked for while the page is still being made.
  const begun = location.pathname === "/" ? document.documentElement.dataset.run : location.pathname.match(/^\/run\/(\d{1,6})$/)?.[1];
  let early = begun === undefined ? null : { run: Number(begun), news: all(begun).catch(() => null) };

  let known = null;      // of the run that is open
  let turn = 0;          // of the choice of a column: an answer that another choice has overtaken is dropped
  let fits = null;       // a bit a trial number; null: all fit
  let colours = null;    // { name, values: by trial number, version }; null: the front and the others

  const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
  const fit = number => fits === null || number >= 8 * fits.length || (fits[number >> 3] >> (number & 7) & 1) === 1;
  const able = row => fit(row.trial) && row.feasible;

  async function asked(path, question, run = known.run) {
    const answer = await fetch(`/run/${run}/${path}?${new URLSearchParams(question)}`);
    if (answer.ok) return answer.json();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    throw new Error(page.querySelector("p")?.textContent || `the board answers ${answer.status}`);
  }

  function all(run) { return asked("rows", { since: 0 }, run); }

  function open(run) {
    turn++;
    known = { run, version: 0, asking: false, table: new Map(), front: new Set(), told: "", front_version: 0 };
    fits = colours = null;
  }

  // Takes what has changed; returns whether anything has, the version that changed the front, how the run stands (`state`) and how
  // much was said of it (`reviewed`); null while the last question is open.
  async function follow() {
    const mine = known;
    if (mine.asking) return null;
    mine.asking = true;
    try {
      const first = early?.run === mine.run ? early.news : null;
      early = null;
      const news = await first ?? await asked("rows", { since: mine.version });
      if (mine !== known) return null; // another run was opened
      const changed = news.version !== mine.version;
      if (changed) take(news);
      return { changed, front: known.front_version, state: news.state, reviewed: news.reviewed };
    } finally {
      mine.asking = false;
    }
  }

  function take(news) {
    if (news.from === 0) known.table = new Map();
    const columns = Object.entries(news.rows);
    news.rows.trial.forEach((number, i) => {
      const row = {};
      for (const [name, values] of columns) row[name] = values[i];
      known.table.set(number, row);
    });
    for (const number of news.gone) known.table.delete(number);
    known.front = new Set(news.front);
    known.version = news.version;
    const told = JSON.stringify(news.front.map(known.table.get, known.table));
    if (told !== known.told) Object.assign(known, { told, front_version: news.version });
  }

  // Colours points by a column, of the rows or asked for, of which what is known is not asked again; returns the key as
  // markup, null where another choice was made meanwhile.
  async function colourBy(name) {
    const mine = ++turn, rows = [...known.table.values()];
    if (name === PLAIN || rows.length === 0) colours = null;
    else if (Object.hasOwn(rows[0], name)) colours = { name, values: new Map(rows.map(row => [row.trial, row[name]])) };
    else {
      const found = colours?.name === name ? colours : { name, values: new Map(), version: 0 };
      const news = await asked("column", { name, since: found.version });
      if (mine !== turn) return null;
      news.trial.forEach((number, i) => found.values.set(number, news.values[i]));
      colours = Object.assign(found, { version: news.version });
    }
    return colours ? described() : "";
  }

  function described() {
    const found = [...new Set(colours.values.values())].filter(value => value !== null && value !== undefined);
    if (found.length === 0) return "nothing known";
    if (typeof found[0] === "string") {
      colours.place = new Map(found.sort().map((value, i) => [value, BASES[i % BASES.length]]));
      return found.map(value => `<span><i style="background:${colours.place.get(value)}"></i>${escape(value)}</span>`).join(" ");
    }
    const low = found.reduce((a, b) => Math.min(a, b)), high = found.reduce((a, b) => Math.max(a, b));
    Object.assign(colours, { low, span: high - low || 1, place: null });
    const text = value => Number(value.toPrecision(4));
    return `${text(low)} <i class="ramp" style="background:linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(shade)})"></i> ${text(high)}`;
  }

  function shade(part) {
    const place = Math.min(Math.max(part, 0), 1) * (SCALE.length - 1), first = Math.min(Math.floor(place), SCALE.length - 2);
    return `rgb(${SCALE[first].map((from, i) => Math.round(from + (place - first) * (SCALE[first + 1][i] - from)))})`;
  }
  const shades = Array.from({ length: STEPS }, (_, i) => shade(i / (STEPS - 1)));

  // Returns a row's colour; the front and the others have one each where no column is chosen.
  function colour(row) {
    if (!colours) return row.kind === "reference" ? INK : known.front.has(row.trial) || row.kind === "uniform" ? ACCENT : GREY;
    const value = colours.values.get(row.trial);
    if (value === null || value === undefined) return GREY;
    return colours.place ? colours.place.get(value) : shades[Math.round((STEPS - 1) * (value - colours.low) / colours.span)];
  }

  // Asks which candidates fit; returns the limits in words, what is left, and whether other candidates fit than before; null
  // where another run was opened meanwhile.
  async function fitting(question) {
    const mine = known, answer = await asked("fitting", question);
    if (mine !== known) return null;
    const numbers = [...known.table.keys()], before = numbers.map(fit);
    fits = Uint8Array.from(atob(answer.bits), c => c.charCodeAt(0));
    return Object.assign(answer, { changed: numbers.some((number, i) => fit(number) !== before[i]) });
  }

  return {
    ACCENT, GREY, open, follow, colourBy, fitting, colour, fit, able, escape,
    rows: () => known ? [...known.table.values()] : [],
    row: number => known?.table.get(number),
    onFront: row => known.front.has(row.trial),
  };
})();
