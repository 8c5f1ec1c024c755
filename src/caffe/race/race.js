// The arithmetic of the race: surfaces come from the page's data, the rules are those of caffe.solver, in float64.
"use strict";
function Noise(seed) {  // mulberry32, and normal numbers by Box and Muller's method
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6D2B79F5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1) >>> 0;
    t = (t ^ (t + (Math.imul(t ^ (t >>> 7), t | 61) >>> 0))) >>> 0;
    return (((t ^ (t >>> 14)) >>> 0) + 1) / 4294967296;
  };
  return () => {
    const length = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
    return [length * Math.cos(angle), length * Math.sin(angle)];
  };
}
const map = (n, f) => Array.from({ length: n }, (_, i) => f(i));
const norm = (a) => Math.sqrt(a.reduce((s, v) => s + v * v, 0));
// Each rule: (gradient, weights, rate, t, state, settings) -> what to subtract. b1 = momentum, b2 = momentum2.
function moments(g, h, p) {
  h.m = h.m.map((m, i) => p.momentum * m + (1 - p.momentum) * g[i]);
  h.v = h.v.map((v, i) => p.momentum2 * v + (1 - p.momentum2) * g[i] * g[i]);
}
function corrected(g, h, p, t) {
  moments(g, h, p);
  return h.m.map((m, i) => m / (1 - p.momentum ** t) / (Math.sqrt(h.v[i] / (1 - p.momentum2 ** t)) + p.delta));
}
const RULES = {
  SGD: (g, w, r, t, h, p) => (h.m = h.m.map((v, i) => p.momentum * v + r * g[i])).slice(),
  Nesterov: (g, w, r, t, h, p) => {
    const old = h.m;
    h.m = old.map((v, i) => p.momentum * v + r * g[i]);
    return h.m.map((v, i) => (1 + p.momentum) * v - p.momentum * old[i]);
  },
  AdaGrad: (g, w, r, t, h, p) => {
    h.v = h.v.map((v, i) => v + g[i] * g[i]);
    return g.map((x, i) => r * x / (Math.sqrt(h.v[i]) + p.delta));
  },
  RMSProp: (g, w, r, t, h, p) => {
    h.v = h.v.map((v, i) => p.rms_decay * v + (1 - p.rms_decay) * g[i] * g[i]);
    return g.map((x, i) => r * x / (Math.sqrt(h.v[i]) + p.delta));
  },
  AdaDelta: (g, w, r, t, h, p) => {
    const mu = p.momentum;
    h.m = h.m.map((v, i) => mu * v + (1 - mu) * g[i] * g[i]);
    const u = g.map((x, i) => x * Math.sqrt((h.v[i] + p.delta) / (h.m[i] + p.delta)));
    h.v = h.v.map((s, i) => mu * s + (1 - mu) * u[i] * u[i]);
    return u.map((x) => r * x);
  },
  Adam: (g, w, r, t, h, p) => {
    moments(g, h, p);
    const c = Math.sqrt(1 - p.momentum2 ** t) / (1 - p.momentum ** t);
    return h.m.map((m, i) => r * c * m / (Math.sqrt(h.v[i]) + p.delta));
  },
  AdamW: (g, w, r, t, h, p) => corrected(g, h, p, t).map((x) => r * x),
  Muon: (g, w, r, t, h, p) => corrected(g, h, p, t).map((x) => r * x),  // a vector is left to AdamW
  NAdam: (g, w, r, t, h, p) => {
    moments(g, h, p);
    const mu = (k) => p.momentum * (1 - 0.5 * 0.96 ** (k * p.momentum_decay));
    h.product = (t === 1 ? 1 : h.product) * mu(t);
    return h.m.map((m, i) => r * ((1 - mu(t)) * g[i] / (1 - h.product) + mu(t + 1) * m / (1 - h.product * mu(t + 1)))
      / (Math.sqrt(h.v[i] / (1 - p.momentum2 ** t)) + p.delta));
  },
  Lion: (g, w, r, t, h, p) => {
    const u = h.m.map((m, i) => r * Math.sign(p.momentum * m + (1 - p.momentum) * g[i]));
    h.m = h.m.map((m, i) => p.momentum2 * m + (1 - p.momentum2) * g[i]);
    return u;
  },
  LARS: (g, w, r, t, h, p) => {
    const a = norm(w), b = norm(g), ratio = a > 0 && b > 0 ? p.trust_coefficient * a / b : 1;
    return (h.m = h.m.map((v, i) => p.momentum * v + r * ratio * g[i])).slice();
  },
  LAMB: (g, w, r, t, h, p) => {
    const u = corrected(g, h, p, t), a = norm(w), b = norm(u);
    return u.map((x) => r * (a > 0 && b > 0 ? a / b : 1) * x);
  },
};
function compile(surface) {
  const make = (body) => new Function("x", "y", `return ${body};`);
  return { f: make(surface.f), dx: make(surface.dx), dy: make(surface.dy) };
}
function run(type, settings, surface, steps, rate, start, noise, seed) {
  const s = compile(surface), draw = Noise(seed), h = { m: [0, 0], v: [0, 0] };
  let w = start.slice();
  const points = [w.slice()];
  for (let t = 1; t <= steps; t++) {
    let g = [s.dx(w[0], w[1]), s.dy(w[0], w[1])];
    if (noise) { const z = draw(); g = g.map((v, i) => v + noise * z[i]); }
    const step = RULES[type](g, w, rate, t, h, settings);
    w = w.map((v, i) => v - step[i]);
    if (!w.every((v) => Number.isFinite(v) && Math.abs(v) < 1e6)) break;
    points.push(w.slice());
  }
  return points;
}
if (typeof module !== "undefined") module.exports = { run, RULES, Noise };
