// The spinal broker's afferents taken by Node-RED as its users build it: an mqtt node that reads JSON, and a function that
// tells duplicates and sums up windows of a second. Nothing is checked against a schema.
//
//   node node_red.mjs NODE_RED_FOLDER USER_FOLDER mqtts://HOST:PORT FILTER [IDENTITY_FOLDER]
//
// Says "ready" once subscribed, runs until its input ends, then says what it has seen as JSON.
import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";
import http from "node:http";

const [installed, userDir, url, topic, folder] = process.argv.slice(2);
const RED = createRequire(`${installed}/package.json`)("node-red");
const { hostname, port } = new URL(url);
const lags = [];
const shared = { received: 0, rejected: 0, bundles: 0, lags };

const take = `
const shared = global.get("shared");
const { meta, payload } = msg.payload;
shared.received += 1;
const known = context.get("known") ?? new Set();
const windows = context.get("windows") ?? new Map();
context.set("known", known);
context.set("windows", windows);
const id = meta.source + meta.message_id;
if (known.has(id)) { shared.rejected += 1; return null; }
known.add(id);
if (known.size > 16384) known.delete(known.values().next().value);
const second = Math.trunc(Date.now() / 1000);
if (context.get("second") !== second) { shared.bundles += windows.size; windows.clear(); context.set("second", second); }
const found = windows.get(meta.source) ?? { count: 0, mean: 0, min: payload.value, max: payload.value };
windows.set(meta.source, found);
found.count += 1;
found.mean += (payload.value - found.mean) / found.count;
found.min = Math.min(found.min, payload.value);
found.max = Math.max(found.max, payload.value);
if (shared.received % 10 === 0) shared.lags.push(Date.now() - meta.t_ms);
return null;`;

const secured = { id: "tls", type: "tls-config", cert: `${folder}/cert.pem`, key: `${folder}/key.pem`, ca: `${folder}/ca.pem`, verifyservercert: true };
const broker = { id: "broker", type: "mqtt-broker", broker: hostname, port, clientid: "brainstem", autoConnect: true, usetls: Boolean(folder), tls: folder ? "tls" : "", protocolVersion: "5", keepalive: "60", cleansession: true };
const flows = [
  { id: "tab", type: "tab", label: "flood" },
  broker,
  ...(folder ? [secured] : []),
  { id: "in", z: "tab", type: "mqtt in", topic, qos: "1", datatype: "json", broker: "broker", nl: false, rap: true, rh: 0, inputs: 0, wires: [["take"]] },
  { id: "take", z: "tab", type: "function", func: take, outputs: 1, wires: [[]] },
];
writeFileSync(`${userDir}/flows.json`, JSON.stringify(flows));

RED.init(http.createServer(), {
  userDir,
  flowFile: "flows.json",
  credentialSecret: false,
  httpAdminRoot: false,
  httpNodeRoot: false,
  functionGlobalContext: { shared },
  logging: { console: { level: "error" } },
});
await RED.start();
const connected = setInterval(() => {
  if (!RED.nodes.getNode("broker")?.connected) return;
  clearInterval(connected);
  setTimeout(ready, 500); // it subscribes at once, and tells nobody when that is done
}, 50);

function ready() {
  const started = process.cpuUsage();
  process.stdin.on("end", () => end(process.cpuUsage(started))).resume();
  console.log("ready");
}

function end({ user, system }) {
  const ordered = lags.sort((a, b) => a - b);
  const rank = (share) => ordered[Math.ceil(share * ordered.length) - 1];
  const lag_ms = ordered.length ? { p50: rank(0.5), p99: rank(0.99), worst: rank(1) } : null;
  console.log(JSON.stringify({ received: shared.received, rejected: shared.rejected, lag_ms, cpu_s: (user + system) / 1e6 }));
  process.exit(0);
}
