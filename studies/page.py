"""The look of the report: style, script, and the frame of the one HTML page around its sections."""

from __future__ import annotations

import html
import json
from typing import Any

STYLE = """
:root { --ink: #1c2430; --muted: #5b6675; --line: #dfe4e8; --soft: #f5f7f8; --accent: #0b6b74; --mark: #e3f1f2; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
.brand { margin: 0; color: var(--accent); font-weight: 600; font-size: 14px; letter-spacing: .02em; }
h1 { margin: 2px 0 8px; font-size: clamp(28px, 5vw, 40px); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { margin: 56px 0 4px; font-size: 22px; letter-spacing: -.01em; }
h3 { margin: 0; font-size: 17px; }
p { margin: 0 0 10px; max-width: 90ch; }
.note { color: var(--muted); font-size: 14.5px; max-width: 92ch; }
a { color: var(--accent); }
a:focus-visible, button:focus-visible, summary:focus-visible, [tabindex]:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 1px;
  margin: 24px 0 0; padding: 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { background: #fff; padding: 14px 18px; }
.facts dt { color: var(--muted); font-size: 13.5px; }
.facts dd { margin: 0; font-size: 22px; font-weight: 600; letter-spacing: -.01em; }
.facts small { display: block; color: var(--muted); font-size: 13.5px; font-weight: 400; letter-spacing: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 10px 0 0; padding: 0; list-style: none;
  color: var(--muted); font-size: 14px; }
.legend svg { vertical-align: -2px; margin-right: 6px; }
.views { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; margin-top: 12px; }
.views figure { margin: 0; min-width: 0; }
.views figcaption { font-weight: 600; font-size: 15px; }
.views figcaption span { color: var(--muted); font-weight: 400; font-size: 13.5px; margin-left: 6px; }
.plot { height: 360px; }
.chart { height: 300px; max-width: 820px; }
.scroll { overflow-x: auto; margin-top: 12px; border: 1px solid var(--line); border-radius: 10px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14.5px; }
th, td { padding: 8px 14px; text-align: right; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; font-size: 13.5px; background: var(--soft); }
tbody tr { border-top: 1px solid var(--line); }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; min-width: 220px; overflow-wrap: anywhere; }
tr[data-trial] { cursor: pointer; }
tr[data-trial]:hover { background: var(--soft); }
tr.selected, tr.selected:hover { background: var(--mark); box-shadow: inset 3px 0 var(--accent); }
td small { color: var(--muted); font-size: 13px; }
details { margin-top: 16px; }
summary { cursor: pointer; color: var(--accent); font-weight: 500; }
.member { margin-top: 28px; padding: 22px 24px; border: 1px solid var(--line); border-radius: 12px;
  scroll-margin-top: 16px; }
.member.selected { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.member > div:first-child { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 20px; }
.member .note { margin: 0 0 14px; }
.key { display: flex; flex-wrap: wrap; gap: 6px 24px; margin: 0 0 8px; color: var(--muted); font-size: 14.5px; }
.key > span { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; }
.key .strip { margin: 0; }
.numbers { display: flex; flex-wrap: wrap; gap: 2px 22px; margin: 6px 0 14px; padding: 0; list-style: none;
  font-size: 15px; }
.numbers b { font-weight: 600; }
.numbers span { color: var(--muted); font-size: 14px; }
.strip { display: flex; flex-wrap: wrap; gap: 11px 2px; margin: 0 0 12px; }
.strip i { width: 23px; height: 27px; border-radius: 3px; font: 600 12px/21px system-ui, sans-serif; text-align: center;
  border: 1px solid rgba(28, 36, 48, .18); position: relative; color: var(--ink); font-style: normal; }
.strip i::after { content: ""; position: absolute; left: 3px; right: 3px; bottom: 3px; height: 2px; }
.strip i.integer::after { background: currentColor; }
.strip i.float::after { background: repeating-linear-gradient(90deg, currentColor 0 2px, transparent 2px 5px); }
.strip i.pruned::before { content: ""; position: absolute; left: -1px; right: -1px; bottom: -7px; height: 4px;
  border-radius: 2px; background: linear-gradient(90deg, var(--accent) var(--kept), #e3e8ea var(--kept)); }
.strip i.sparse { text-decoration: underline dotted; text-underline-offset: 1px; }
.strip .b2 { background: #06393e; color: #fff; }
.strip .b3 { background: #0b6b74; color: #fff; }
.strip .b4 { background: #22808a; color: #fff; }
.strip .b5 { background: #6fb0b6; }
.strip .b6 { background: #93c5c9; }
.strip .b7 { background: #b1d6d9; }
.strip .b8 { background: #cce5e7; }
.strip .b16 { background: #ebf1f3; font-size: 11px; }
.strip .b32 { background: #fff; font-size: 11px; }
.triple { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; margin: 0 0 16px;
  max-width: 920px; }
.triple figure { margin: 0; }
figure.student { margin: 0 0 14px; }
figure.student figcaption { color: var(--muted, #667); font-size: 13px; }
.triple img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--soft);
  touch-action: pan-y; }
.triple figcaption { color: var(--muted); font-size: 13.5px; line-height: 1.35; padding-top: 5px; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 28px; }
.pair .triple { margin-bottom: 0; }
footer { margin-top: 56px; padding-top: 20px; padding-bottom: 48px; border-top: 1px solid var(--line);
  color: var(--muted); font-size: 14px; }
footer p { max-width: 100ch; }
@media (max-width: 980px) { .views { grid-template-columns: minmax(0, 1fr); gap: 28px; } .plot { height: 320px; } }
@media (max-width: 760px) {
  main, header, footer { padding-left: 16px; padding-right: 16px; } header { padding-top: 24px; }
  .member { padding: 16px 14px; } .pair { grid-template-columns: minmax(0, 1fr); row-gap: 14px; } .triple { gap: 6px; }
  .facts { grid-template-columns: 1fr 1fr; } th, td { padding: 8px 10px; } h2 { margin-top: 44px; } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print { .member { break-inside: avoid; } }
"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const plots = [];
for (const image of document.querySelectorAll("img[data-tile]")) {
  image.src = data.tiles[image.dataset.tile];
  if (!image.dataset.compare) continue;
  const show = name => () => { image.src = data.tiles[image.dataset[name]]; };
  image.addEventListener("pointerdown", show("compare"));
  for (const event of ["pointerup", "pointerleave", "pointercancel"]) image.addEventListener(event, show("tile"));
  image.addEventListener("contextmenu", event => event.preventDefault());
  image.draggable = false;
}
function select(trial, scroll) {
  for (const element of document.querySelectorAll("[data-trial]"))
    element.classList.toggle("selected", Number(element.dataset.trial) === trial);
  const point = data.points[trial];
  for (const { div, x, y } of plots) {
    const there = point && point[x] !== null && point[y] !== null;
    Plotly.restyle(div, { x: [there ? [point[x]] : []], y: [there ? [point[y]] : []] }, [data.ring]);
  }
  const card = document.getElementById("trial-" + trial);
  if (scroll && card) card.scrollIntoView({ block: "start" });
}
for (const [name, figure] of Object.entries(data.figures)) {
  const div = document.getElementById(name);
  const narrow = window.matchMedia("(max-width: 980px)").matches;
  const layout = Object.assign({}, figure.layout, { height: narrow ? 320 : 360, dragmode: narrow ? false : "zoom" });
  Plotly.newPlot(div, figure.data, layout, { responsive: true, displayModeBar: false });
  const [x, y] = data.views[name];
  plots.push({ div, x, y });
  div.on("plotly_click", event => select(event.points[0].customdata, true));
}
for (const [name, figure] of Object.entries(data.charts)) {
  const div = document.getElementById(name);
  if (div) Plotly.newPlot(div, figure.data, figure.layout, { responsive: true, displayModeBar: false });
}
document.addEventListener("click", event => {
  const row = event.target.closest("tr[data-trial]");
  const link = event.target.closest("a[href^='#trial-']");
  if (row || link) select(Number((row || link.closest("[data-trial]")).dataset.trial), false);
});
const wanted = /^#trial-(\\d+)$/.exec(location.hash);
if (wanted) select(Number(wanted[1]), true);
"""

ROBOTS = '<meta name="robots" content="noindex">'


def page(title: str, header: str, body: str, footer: str, data: dict[str, Any]) -> str:
    """Return the whole page: everything inline, nothing loaded from elsewhere.

    Args:
        title: plain text.
        header: HTML of the page's head section, escaped already; so are ``body`` and ``footer``.
        body: HTML of the sections.
        footer: HTML of the end.
        data: what the script reads, plain data without NaN: figures, views, points, tiles, ring, charts.
    """
    from plotly.offline import get_plotlyjs

    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{ROBOTS}\n<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>{header}</header>\n<main>{body}</main>\n<footer>{footer}</footer>\n"
        f'<script id="data" type="application/json">{embedded(data)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def embedded(data: Any) -> str:
    """Return JSON that is safe inside a script element: no ``<``, ``>``, ``&``, NaN or Infinity."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
