// Two pictures under one slider and their difference beside it, zoomed and moved together.
"use strict";
(() => {
  const LEAST = 1, MOST = 16, STEP = 1.3;
  const state = stage => stage.slimfront ??= { zoom: 1, x: 0, y: 0 };
  const stageOf = element => element.closest?.(".stage");

  function show(stage) {
    const s = state(stage), pane = stage.querySelector(".pane"), { width, height } = pane.getBoundingClientRect();
    s.zoom = Math.min(MOST, Math.max(LEAST, s.zoom));
    s.x = Math.min(0, Math.max(width * (1 - s.zoom), s.x));
    s.y = Math.min(0, Math.max(height * (1 - s.zoom), s.y));
    stage.style.setProperty("--zoom", s.zoom);
    stage.style.setProperty("--x", `${s.x}px`);
    stage.style.setProperty("--y", `${s.y}px`);
    stage.dataset.zoom = s.zoom.toFixed(2);
    stage.classList.toggle("close", s.zoom >= 2);
    stage.classList.toggle("moved", s.zoom > 1);
  }
  function zoom(stage, factor, at) {
    const s = state(stage), box = stage.querySelector(".pane").getBoundingClientRect();
    const [px, py] = at || [box.width / 2, box.height / 2];
    const before = s.zoom;
    s.zoom = Math.min(MOST, Math.max(LEAST, s.zoom * factor));
    s.x = px - (px - s.x) * s.zoom / before;
    s.y = py - (py - s.y) * s.zoom / before;
    show(stage);
  }
  function whole(stage) { stage.slimfront = { zoom: 1, x: 0, y: 0 }; show(stage); }
  function toTile(stage) {
    const mark = stage.querySelector(".tile"), box = stage.querySelector(".pane").getBoundingClientRect();
    const [top, left, height, width] = ["top", "left", "height", "width"].map(name => parseFloat(mark.style[name]) / 100);
    const s = state(stage);
    s.zoom = Math.min(MOST, Math.max(2, 0.4 / Math.max(height, width)));
    s.x = box.width / 2 - (left + width / 2) * box.width * s.zoom;
    s.y = box.height / 2 - (top + height / 2) * box.height * s.zoom;
    show(stage);
  }

  document.addEventListener("input", event => {
    const stage = stageOf(event.target);
    if (stage && event.target.id === "split") stage.style.setProperty("--split", `${event.target.value}%`);
  });
  document.addEventListener("click", event => {
    const stage = stageOf(event.target), act = event.target.closest?.("[data-act]")?.dataset.act;
    if (!stage || !act) return;
    ({ in: () => zoom(stage, STEP), out: () => zoom(stage, 1 / STEP), whole: () => whole(stage), tile: () => toTile(stage) })[act]?.();
  });
  document.addEventListener("wheel", event => {
    const pane = event.target.closest?.(".stage .pane");
    if (!pane || !(event.ctrlKey || state(stageOf(pane)).zoom > 1 || event.shiftKey)) return; // the page scrolls as usual
    event.preventDefault();
    const box = pane.getBoundingClientRect();
    zoom(stageOf(pane), event.deltaY < 0 ? STEP : 1 / STEP, [event.clientX - box.left, event.clientY - box.top]);
  }, { passive: false });
  document.addEventListener("dblclick", event => {
    const pane = event.target.closest?.(".stage .pane");
    if (!pane) return;
    const box = pane.getBoundingClientRect();
    zoom(stageOf(pane), STEP * STEP, [event.clientX - box.left, event.clientY - box.top]);
  });
  const fingers = new Map(); // by pointer that is down on a picture: the pane, and where it is
  const middle = ([a, b = a]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) || 1 });
  document.addEventListener("pointerdown", event => {
    const pane = event.target.closest?.(".stage .pane");
    if (!pane || event.target.closest("input, button")) return;
    fingers.set(event.pointerId, { pane, x: event.clientX, y: event.clientY });
    event.preventDefault();
    pane.focus({ preventScroll: true });
  });
  document.addEventListener("pointermove", event => { // one moves the picture, two zoom it as well
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    const held = [...fingers.values()].slice(0, 2), before = middle(held);
    Object.assign(finger, { x: event.clientX, y: event.clientY });
    const after = middle(held), stage = stageOf(finger.pane), s = state(stage), box = finger.pane.getBoundingClientRect();
    s.x += after.x - before.x;
    s.y += after.y - before.y;
    zoom(stage, after.apart / before.apart, [after.x - box.left, after.y - box.top]);
  });
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, event => fingers.delete(event.pointerId));
  document.addEventListener("keydown", event => {
    const pane = event.target.closest?.(".stage .pane");
    if (!pane || event.target !== pane) return;
    const stage = stageOf(pane), s = state(stage), far = 40;
    const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
    if (event.key in moves) { s.x += moves[event.key][0]; s.y += moves[event.key][1]; show(stage); }
    else if (event.key === "+" || event.key === "=") zoom(stage, STEP);
    else if (event.key === "-") zoom(stage, 1 / STEP);
    else if (event.key === "0") whole(stage);
    else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", event => { // the judge's keys
    const keys = { ArrowLeft: "judge-left", ArrowRight: "judge-right", ArrowDown: "judge-neither" };
    if (!(event.key in keys) || event.repeat || event.target.closest?.("textarea, input, select, .pane")) return;
    const button = document.getElementById(keys[event.key]);
    if (button && !button.disabled) { event.preventDefault(); button.click(); }
  });
})();
