// A consumer in JavaScript, written from schemas/ alone: prints what passed the gate, and can ask for one action.
//
//   NERVUS_BROKER=mqtts://HOST:PORT NERVUS_IDENTITY=FOLDER node consumer.mjs LEVEL/SCOPE \
//     [CAPABILITY DEVICE/ACTUATOR ARGUMENTS [DEADLINE_MS [ACTION_ID]]]
//
// With an action it ends by itself: status 0 after exactly one outcome, `succeeded`; 1 after anything else.
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { accept, compose, filter, identity, ulid } from "./wire.mjs";

const OUTCOME_GRACE_MS = 6000; // what the hub may need past the deadline to say how it ended
const SECOND_OUTCOME_MS = 1500; // how long a second one, which must not come, is waited for
const REPEAT_MS = 1000;
const { NERVUS_BROKER, NERVUS_IDENTITY } = process.env;
const { name, join } = identity(NERVUS_BROKER, NERVUS_IDENTITY);
const [place, capability, target, parameters, deadline = "5000", action_id = ulid(Date.now())] = process.argv.slice(2);
const [scope_level, scope] = place.split("/");
const levels = { scope_level, scope, action_id, identity: name };
const heard = capability ? ["gated_relay", "action_progress", "outcome", "error_event"] : ["gated_relay"];

const outcomes = new Map(); // by message id: at QoS 1 the same message may come twice
const trace_id = ulid(Date.now());
let accepted = false;
let refused = 0;

const client = await join();
client.on("error", (error) => end(1, { trouble: error.message }));
client.on("close", () => end(1, { trouble: "the connection was lost" }));
client.on("message", (topic, payload, { retain }) => take({ topic, payload, retain }));
await client.subscribeAsync(heard.map((topic) => filter(topic, levels)), { qos: 1 });
say({ listens: place });
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => end(refused ? 1 : 0));
if (capability) await act();

async function act() {
  const [device_id, actuator] = target.split("/");
  const payload = { capability, target: { device_id, actuator }, arguments: JSON.parse(parameters) };
  const began = Date.now();
  for (let due = 0; !outcomes.size && Date.now() < began + Number(deadline) + OUTCOME_GRACE_MS; ) {
    const left = began + Number(deadline) - Date.now();
    if (!accepted && left > 0 && Date.now() >= due) {
      await request(payload, left);
      due = Date.now() + REPEAT_MS;
    }
    await sleep(20);
  }
  await sleep(SECOND_OUTCOME_MS);
  const [only] = outcomes.values();
  end(outcomes.size === 1 && only.status === "succeeded" && !refused ? 0 : 1, { action_id, outcomes: outcomes.size });
}

// The same action_id until it counts; each try is a message of its own, with what is left of the deadline.
async function request(payload, deadline_ms) {
  const nowMs = Date.now();
  const { topic, payload: bytes } = compose("command_request", levels, payload, {
    message_id: ulid(nowMs),
    source: name,
    principal: name,
    produced_at: new Date(nowMs).toISOString(),
    origin_plane: "consumer",
    scope_level,
    scope,
    content_type: "application/json",
    content_encoding: "identity",
    priority: "normal",
    trace_id,
    span_id: randomBytes(8).toString("hex"),
    action_id,
    deadline_ms,
  });
  await client.publishAsync(topic, bytes, { qos: 1 });
  say({ requested: action_id, deadline_ms });
}

function take(packet) {
  const { refusal, name: kind, levels: where, message } = accept("core", heard, packet, Date.now());
  if (refusal) refuse(packet.topic, refusal);
  else if (kind === "gated_relay") say({ bundle: message.payload, priority: message.meta.priority, ...where });
  else said(kind, message);
}

// A consumer has no lane on which to report what it refuses.
function refuse(topic, { reason_code, stage, message }) {
  refused += 1;
  say({ refused: { topic, reason_code, stage, reason: message } });
}

function said(kind, { meta, payload, errors }) {
  accepted ||= kind !== "error_event";
  if (kind === "outcome") outcomes.set(meta.message_id, payload);
  say({ [kind]: payload, errors });
}

function say(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

function end(status, what) {
  if (what) say(what);
  process.exit(status);
}
