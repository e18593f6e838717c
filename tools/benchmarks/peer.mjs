// The spinal broker's afferents taken as strictly as brainstem takes them, with mqtt.js and ajv: checked against schema
// and topic, told apart from duplicates, summed up in windows of a second.
//
//   node peer.mjs mqtts://HOST:PORT IDENTITY_FOLDER
//   node peer.mjs mqtt://HOST:PORT
//
// Says "ready" once subscribed, runs until its input ends, then says what it has seen as JSON.
import { accept, anonymous, filter, identity, read } from "../../tests/node/wire.mjs";

const WINDOW_MS = 1000;
const REMEMBERED = 16_384;
const [url, folder] = process.argv.slice(2);
const channels = read("registries/sensor_types.json").entries;
const known = new Set();
const windows = new Map();
const lags = [];
const seen = { received: 0, rejected: 0, bundles: 0 };
let started = process.cpuUsage();

const client = await (folder ? identity(url, folder) : anonymous(url, "brainstem")).join();
client.on("message", (topic, payload, { retain }) => take({ topic, payload, retain }));
await client.subscribeAsync([filter("afferent", {})], { qos: 1 });
setInterval(close, WINDOW_MS);
process.stdin.on("end", end).resume();
started = process.cpuUsage();
console.log("ready");

function take(packet) {
  seen.received += 1;
  const now = Date.now();
  const { refusal, levels, message } = accept("spinal", ["afferent"], packet, now);
  if (refusal || levels.device_id === undefined || message.meta.source !== `device:${levels.device_id}`) {
    seen.rejected += 1;
    return;
  }
  const { meta, payload } = message;
  const id = `${meta.source} ${meta.message_id}`;
  if (known.has(id)) {
    seen.rejected += 1;
    return;
  }
  known.add(id);
  if (known.size > REMEMBERED) known.delete(known.values().next().value);
  sum(levels, payload);
  lags.push(performance.timeOrigin + performance.now() - meta.t_ms);
}

function sum({ scope_level, scope, device_id }, { sensor_type, value, unit }) {
  const place = `${scope_level}/${scope}/${channels[sensor_type].channel}`;
  if (!windows.has(place)) windows.set(place, new Map());
  const signals = windows.get(place);
  const key = `${sensor_type} ${device_id} ${unit}`;
  const found = signals.get(key) ?? { sensor_type, device_id, unit, count: 0, mean: 0, min: value, max: value, changes: 0 };
  signals.set(key, found);
  found.changes += found.count > 0 && found.last !== value ? 1 : 0;
  found.count += 1;
  found.mean += (value - found.mean) / found.count;
  found.min = Math.min(found.min, value);
  found.max = Math.max(found.max, value);
  found.last = value;
}

function close() {
  for (const signals of windows.values()) seen.bundles += JSON.stringify([...signals.values()]).length > 0;
  windows.clear();
}

function end() {
  const { user, system } = process.cpuUsage(started);
  const ordered = lags.sort((a, b) => a - b);
  const rank = (share) => ordered[Math.ceil(share * ordered.length) - 1];
  const lag_ms = ordered.length ? { p50: rank(0.5), p99: rank(0.99), worst: rank(1) } : null;
  console.log(JSON.stringify({ ...seen, lag_ms, cpu_s: (user + system) / 1e6 }));
  process.exit(0);
}
