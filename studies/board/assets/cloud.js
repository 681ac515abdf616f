// The points of a view, painted on a canvas over Plotly's axes: there can be tens of thousands, and a budget that is moved
// changes all of them. A point is told of where the pointer is, and selected by a click.
"use strict";
(() => {
  const REACH = { mouse: 8, touch: 18 }; // pixels around a point that mean it
  const INK = "#1c2430";
  const RING = 10.5;      // its radius
  const CAP = 2;          // half the width of an interval's ends
  const BARE = { willReadFrequently: true }; // painted by the processor, which many small pictures are fastest with
  const around = (count, radius) => Array.from({ length: count }, (_, i) => [Math.sin, Math.cos].map((f, k) => (k ? -1 : 1) * radius(i) * f(2 * Math.PI * i / count)));
  const CORNERS = { // in radii; what has none is a circle
    square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
    diamond: [[0, -1.2], [1, 0], [0, 1.2], [-1, 0]],
    "triangle-up": [[0, -1], [1, 0.8], [-1, 0.8]],
    star: around(10, i => i % 2 ? 0.55 : 1.25),
  };
  const sprites = new Map();

  function sprite(symbol, color, size, open, scale) {
    const key = [symbol, color, size, open, scale].join();
    if (!sprites.has(key)) sprites.set(key, made(symbol, color, size, open, scale));
    return sprites.get(key);
  }

  function made(symbol, color, size, open, scale) {
    const side = 1.3 * size + 4, canvas = new OffscreenCanvas(side * scale, side * scale), pen = canvas.getContext("2d", BARE), r = size / 2;
    pen.scale(scale, scale);
    pen.translate(side / 2, side / 2);
    pen.beginPath();
    const corners = CORNERS[symbol];
    if (corners) corners.forEach(([x, y]) => pen.lineTo(r * x, r * y));
    else pen.arc(0, 0, r, 0, 2 * Math.PI);
    pen.closePath();
    pen.lineWidth = open ? 1.6 : 1;
    pen.fillStyle = color;
    pen.strokeStyle = open ? color : "white";
    if (!open) pen.fill();
    pen.stroke();
    return pixels(pen.getImageData(0, 0, canvas.width, canvas.height));
  }

  // Returns the pixels of a picture that are seen: column and row from its middle, red, green, blue and opacity of each.
  function pixels({ data, width, height }) {
    const seen = [];
    for (let i = 0; i < width * height; i++)
      if (data[4 * i + 3]) seen.push(i % width - (width >> 1), Math.floor(i / width) - (height >> 1), ...data.subarray(4 * i, 4 * i + 4));
    return Int16Array.from(seen);
  }

  // Returns the canvas of a view, made when it is first asked for.
  function canvasOf(holder) {
    let canvas = holder.querySelector("canvas.cloud");
    if (canvas === null) {
      canvas = Object.assign(document.createElement("canvas"), { className: "cloud", points: [], rings: [] });
      canvas.setAttribute("aria-hidden", "true");
      const told = Object.assign(document.createElement("div"), { className: "told", hidden: true });
      holder.prepend(canvas);
      holder.append(told);
      listen(holder, canvas, told);
    }
    return canvas;
  }

  // Shows points in a view, by the axes of its figure or, before Plotly is there, by the ones that it will have.
  //   points: each with row, x, y, symbol, size, color, opacity, whether it is open, and on what level it lies; bar, where it
  //     has an interval: the axis and its ends
  //   rings: rows around which there is one
  // The ends of both axes stand in the view's element (`spans`).
  function show(holder, points, rings) {
    points.sort((a, b) => a.level - b.level || a.opacity - b.opacity);
    Object.assign(canvasOf(holder), { points, rings });
    paint(holder);
  }

  function axes(holder) {
    const full = holder.querySelector(".js-plotly-plot")?._fullLayout;
    if (full) return [full.xaxis, full.yaxis].map(axis => ({ start: axis._offset, length: axis._length, place: value => axis.d2p(value) }));
    const { l, r, t, b } = JSON.parse(holder.dataset.margin), [width, height] = [holder.clientWidth - l - r, holder.clientHeight - t - b];
    const part = ({ low, high, log }) => value => ((log ? Math.log10(value) : value) - low) / (high - low);
    const [across, up] = [part(holder.spans.x), part(holder.spans.y)];
    return [{ start: l, length: width, place: value => width * across(value) }, { start: t, length: height, place: value => height * (1 - up(value)) }];
  }

  function paint(holder) {
    const canvas = canvasOf(holder), scale = window.devicePixelRatio || 1;
    const [x, y] = axes(holder);
    Object.assign(canvas.style, { left: `${x.start}px`, top: `${y.start}px`, width: `${x.length}px`, height: `${y.length}px` });
    Object.assign(canvas, { width: Math.round(x.length * scale), height: Math.round(y.length * scale) });
    const pen = canvas.getContext("2d", BARE);
    for (const point of canvas.points) [point.left, point.top] = [x.place(point.x), y.place(point.y)];
    for (const { color, bar, ...point } of canvas.points.filter(point => point.bar))
      stroke(pen, scale, color, 1, () => interval(pen, point, bar, { x, y }[bar.axis]));
    const picture = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (const { symbol, color, size, open, opacity, left, top } of canvas.points)
      lay(picture, sprite(symbol, color, size, open, scale), left * scale, top * scale, opacity);
    pen.putImageData(picture, 0, 0);
    for (const { left, top } of canvas.points.filter(point => canvas.rings.includes(point.row)))
      stroke(pen, scale, INK, 2.5, () => pen.arc(left, top, RING, 0, 2 * Math.PI));
    canvas.dispatchEvent(new Event("painted"));
  }

  // Lays a sprite over a picture, its middle at a place. To have the browser draw each takes ten times as long.
  function lay({ data: under, width, height }, sprite, x, y, opacity) {
    const [left, top] = [Math.round(x), Math.round(y)];
    for (let i = 0; i < sprite.length; i += 6) {
      const column = left + sprite[i], row = top + sprite[i + 1];
      if (column < 0 || row < 0 || column >= width || row >= height) continue;
      const to = 4 * (row * width + column), over = opacity * sprite[i + 5], behind = under[to + 3] * (1 - over / 255), both = over + behind;
      under[to] = (sprite[i + 2] * over + under[to] * behind) / both;
      under[to + 1] = (sprite[i + 3] * over + under[to + 1] * behind) / both;
      under[to + 2] = (sprite[i + 4] * over + under[to + 2] * behind) / both;
      under[to + 3] = both;
    }
  }

  function stroke(pen, scale, color, width, path) {
    pen.save();
    pen.scale(scale, scale);
    Object.assign(pen, { strokeStyle: color, lineWidth: width });
    pen.beginPath();
    path();
    pen.stroke();
    pen.restore();
  }

  function interval(pen, { left, top }, bar, axis) {
    const [low, high] = [axis.place(bar.low), axis.place(bar.high)];
    const line = (x1, y1, x2, y2) => { pen.moveTo(x1, y1); pen.lineTo(x2, y2); };
    if (bar.axis === "x") { line(low, top, high, top); for (const x of [low, high]) line(x, top - CAP, x, top + CAP); }
    else { line(left, low, left, high); for (const y of [low, high]) line(left - CAP, y, left + CAP, y); }
  }

  // Returns the point that a pointer means, one of a higher level or that fits rather than another; null where there is none.
  function meant(canvas, event) {
    const box = canvas.getBoundingClientRect(), [left, top] = [event.clientX - box.left, event.clientY - box.top];
    if (left < 0 || top < 0 || left > box.width || top > box.height) return null;
    let best = null, reach = REACH[event.pointerType] ?? REACH.mouse;
    for (const point of canvas.points) {
      const away = Math.hypot(point.left - left, point.top - top) + (point.opacity < 1 ? 2 : 0) - 2 * point.level;
      if (away < reach) [best, reach] = [point, away];
    }
    return best;
  }

  function listen(holder, canvas, told) {
    holder.addEventListener("pointermove", event => {
      const point = event.buttons ? null : meant(canvas, event);
      told.hidden = point === null;
      if (point === null) return;
      told.innerHTML = window.slimfront.hover(point.row);
      const [left, top] = [canvas.offsetLeft + point.left, canvas.offsetTop + point.top];
      const over = left + 14 + told.offsetWidth > holder.clientWidth;
      Object.assign(told.style, { left: `${over ? left - 14 - told.offsetWidth : left + 14}px`, top: `${top - told.offsetHeight / 2}px` });
    });
    holder.addEventListener("pointerleave", () => { told.hidden = true; });
  }

  let pressed = null; // a pointer, its place, and the view that it is on: Plotly lays other elements under it
  document.addEventListener("pointerdown", event => {
    pressed = { id: event.pointerId, x: event.clientX, y: event.clientY, holder: event.target.closest?.(".plot") };
  }, true);
  document.addEventListener("pointerup", event => {
    const { id, x, y, holder } = pressed ?? {}, canvas = holder?.querySelector("canvas.cloud");
    pressed = null;
    if (!canvas || id !== event.pointerId || Math.hypot(event.clientX - x, event.clientY - y) > 5) return; // it was a drag
    const point = meant(canvas, event);
    if (point !== null) window.dash_clientside.set_props("selected", { data: point.row.trial });
  }, true);

  Object.assign(window.slimfront, { cloud: { show, paint } });
})();
