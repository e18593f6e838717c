// A board in JavaScript, written from schemas/ alone: a thermometer, a motion sensor and a lamp.
//   NERVUS_BROKER=mqtts://HOST:PORT NERVUS_IDENTITY=FOLDER NERVUS_BOARD=FOLDER node board.mjs
// NERVUS_IDENTITY holds the issued certificate, NERVUS_BOARD what it must not forget. It prints what it does.
import { constants, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { accept, compose, filter, identity, madeAt, read, ulid } from "./wire.mjs";

const { NERVUS_BROKER, NERVUS_IDENTITY, NERVUS_BOARD } = process.env;
const { name: device_id, join } = identity(NERVUS_BROKER, NERVUS_IDENTITY);
const { unit } = read("registries/sensor_types.json").entries.temperature;
const ACTIONS_KEPT = 64;
const OFFSET_LIMIT_MS = 1000;
const CAPABILITIES = [
  { id: "temperature", kind: "sensor", output_schema: "number", unit },
  { id: "motion", kind: "sensor", output_schema: "bool" },
  { id: "lamp", kind: "actuator", input_schema: "bool" },
];

let client; // the present connection
let granted; // where the hub says we are, once a pong of this connection has come
let asked = {}; // the last ping
let offset; // the hub's unix time less our time since boot, once known
let pulse; // what switches the lamp off again
let seq = 0;
let over = false;
const ticks = () => Math.trunc(performance.now() + (offset ?? 0));
const clock = () => ({ t_ms: ticks(), clk: offset === undefined ? "none" : "hub" });
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const trouble = (error) => say({ trouble: error.message });
const report = (levels, action_id, what) => send("efferent_report", levels, what, { action_id });
const failure = (status, code, category, kind = "terminal") =>
  ({ status, error: { code, message: code.replaceAll("_", " "), kind, category } });

const file = `${NERVUS_BOARD}/memory.json`;
const memory = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : { boot: 0, actions: {} };
memory.boot += 1;
for (const [action_id, { status }] of Object.entries(memory.actions)) {
  // The power went while it acted: whether it took place nobody knows, so it is never repeated.
  if (status === "started") memory.actions[action_id] = failure("failed", "interrupted", "dependency");
}
keep();

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => { over = true; });

while (!over) {
  await session().catch(trouble);
  if (!over) await sleep(200 + 800 * Math.random());
}
if (pulse) say({ lamp: false });
process.exit(0); // whatever pulse was running is over, and interrupted at the next start

async function session() {
  const sessionId = ulid(ticks());
  granted = undefined;
  client = await join(message("device_status", {}, { status: "offline", session: sessionId }));
  client.on("error", trouble);
  client.on("message", (topic, payload, { retain }) => take({ topic, payload, retain }, sessionId));
  await client.subscribeAsync(filter("pong", { device_id }), { qos: 0 });
  for (let second = 0; client.connected && !over; second += 1) {
    if (second % 2 === 0) ping();
    if (granted) measure(second);
    await sleep(1000);
  }
  if (client.connected) await send("device_status", {}, { status: "offline", session: sessionId });
  await client.endAsync();
}

function ping() {
  asked = { nonce: (asked.nonce ?? 0) + 1, at: performance.now() };
  send("ping", {}, { nonce: asked.nonce, t0: ticks() });
}

function measure(second) {
  const value = Math.round(2000 + 500 * Math.sin(second / 60)) / 100;
  send("afferent", { sensor_type: "temperature" }, { sensor_type: "temperature", value, unit });
  if (second % 3) return;
  const motion = { sensor_type: "motion", value: second % 2 === 0 };
  send("afferent", { sensor_type: "motion" }, motion, { priority: "critical" });
}

function take(packet, sessionId) {
  const time = offset === undefined ? NaN : ticks();
  const { refusal, name, levels, message } = accept("spinal", ["pong", "efferent_command"], packet, time);
  if (refusal) refuse(packet.topic, refusal);
  else if (name === "pong") pong(message.payload, sessionId).catch(trouble);
  else command(levels, message);
}

function refuse(source_topic, { reason_code, stage, message }) {
  const what = { reason_code, stage, reason: message.slice(0, 256), input_ref: { source_topic } };
  send("reject", { scope_level: "device", scope: device_id }, { ...what, observed_at: ticks() });
  say({ refused: what });
}

async function pong({ nonce, unix_ms, scope_level, scope }, sessionId) {
  const half = (performance.now() - asked.at) / 2;
  if (nonce !== asked.nonce || half > OFFSET_LIMIT_MS) return;
  offset = unix_ms + half - performance.now();
  if (granted) return granted.scope_level === scope_level && granted.scope === scope ? undefined : client.endAsync();
  granted = { scope_level, scope };
  await client.subscribeAsync(filter("efferent_command", { device_id, ...granted }), { qos: 1 });
  await send("device_info", {}, { board: "node", firmware: "1", versions: ["v1"], capabilities: CAPABILITIES });
  await send("device_status", {}, { status: "online", session: sessionId });
  say({ online: sessionId, ...granted, boot: memory.boot });
}

function command(levels, { meta, payload }) {
  const { action_id } = meta;
  const known = memory.actions[action_id];
  if (known) return report(levels, action_id, known.status === "started" ? { status: "acknowledged" } : known);
  if (madeAt(meta) + meta.deadline_ms <= ticks()) return report(levels, action_id, { status: "expired" });
  const refusal = objection(payload);
  if (refusal) return report(levels, action_id, refusal);
  remember(action_id, { status: "started" });
  report(levels, action_id, { status: "acknowledged" });
  const acted_at = ticks();
  const done = () => report(levels, action_id, remember(action_id, { status: "succeeded", acted_at }));
  say({ lamp: payload.set ?? true, action_id });
  if (payload.pulse_ms === undefined) return done();
  pulse = setTimeout(() => { pulse = undefined; say({ lamp: false }); done(); }, payload.pulse_ms);
}

function objection({ actuator, set, ramp }) {
  if (actuator !== "lamp") return failure("rejected", "no_such_actuator", "not_found");
  if (ramp || typeof (set ?? true) !== "boolean") return failure("rejected", "on_or_off_only", "validation");
  return pulse && failure("rejected", "busy", "conflict", "retriable");
}

function remember(action_id, what) {
  memory.actions = Object.fromEntries(Object.entries({ ...memory.actions, [action_id]: what }).slice(-ACTIONS_KEPT));
  keep();
  return what;
}

function keep() {
  const { O_CREAT, O_SYNC, O_TRUNC, O_WRONLY } = constants; // on the disk before anything moves
  writeFileSync(`${file}.new`, JSON.stringify(memory), { flag: O_CREAT | O_SYNC | O_TRUNC | O_WRONLY });
  renameSync(`${file}.new`, file);
}

function message(name, levels, payload, extra) {
  const meta = { message_id: ulid(ticks()), source: `device:${device_id}`, boot: memory.boot, seq: seq++ };
  return compose(name, { device_id, ...granted, ...levels }, payload, { ...meta, ...clock(), ...extra });
}

function send(...what) {
  const { topic, payload, qos, retain } = message(...what);
  return client.publishAsync(topic, payload, { qos, retain }).catch(trouble);
}
