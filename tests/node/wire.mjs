// What a part needs to join: topics, messages and checks, read from schemas/ and from nowhere else.
import { X509Certificate, randomBytes } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import Ajv from "ajv/dist/2020.js";
import mqtt from "mqtt";

const SCHEMAS = new URL("../../schemas/", import.meta.url);
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A message that is not taken, with the reason and stage that a RejectEvent names. */
class Refusal extends Error {
  constructor(reason_code, stage, reason) {
    super(reason);
    Object.assign(this, { reason_code, stage });
  }
}

export const read = (name) => JSON.parse(readFileSync(new URL(name, SCHEMAS), "utf8"));
export const topics = Object.fromEntries(read("topics.json").topics.map((spec) => [spec.name, spec]));
const patterns = Object.values(topics).map((spec) => {
  const levels = spec.template.replace(/\{(\w+)\}/g, "(?<$1>(?:[A-Za-z0-9_:-]|%[0-9A-F]{2})+)");
  return [new RegExp(`^${levels}$`), spec];
});

const ajv = new Ajv({ strictTypes: false }); // a contract's `meta` is put together by allOf
ajv.addVocabulary(["x-check", "x-cbor-key", "x-cbor-value", "x-registry"]);
ajv.addSchema(read("envelope.schema.json"));
for (const file of readdirSync(new URL("contracts/", SCHEMAS))) ajv.addSchema(read(`contracts/${file}`));

/** The filter of a topic's name: a level that is not given stands for every value of it. */
export function filter(name, levels) {
  const encode = (_, level) => (level in levels ? encodeLevel(levels[level]) : "+");
  return topics[name].template.replace(/\{(\w+)\}/g, encode);
}

/** A UUIDv7 value as 26 characters; `nowMs` is the sender's time, since boot where it knows no other. */
export function ulid(nowMs) {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Math.trunc(nowMs), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  let value = BigInt(`0x${bytes.toString("hex")}`);
  let text = "";
  for (; text.length < 26; value >>= 5n) text = CROCKFORD[Number(value & 31n)] + text;
  return text;
}

/** A message to publish. `meta` adds what the profile asks for beyond the five fields of every message. */
export function compose(name, levels, payload, meta) {
  const spec = topics[name];
  const message = {
    meta: { schema_version: "v1", contract: spec.contract, message_type: spec.contract, ...meta },
    payload,
  };
  if (spec.expiry === "required") message.meta.ttl_ms ??= spec.ttl_ms;
  const bytes = Buffer.from(JSON.stringify(message));
  fit(spec, bytes);
  conform(spec, message);
  const urgent = ["critical", "control"].includes(meta.priority);
  const qos = (urgent && spec.critical_qos) || spec.qos;
  return { topic: filter(name, levels), payload: bytes, qos, retain: spec.lifecycle === "state", message };
}

/**
 * What came on a broker: `{name, levels, message}` of the topics in `names`, or why it is not taken: `{refusal}`.
 * `nowMs` is NaN while the receiver does not know the time: nothing is too old then.
 */
export function accept(broker, names, packet, nowMs) {
  try {
    return judge(broker, names, packet, nowMs);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { refusal: error };
  }
}

function judge(broker, names, { topic: address, payload, retain }, nowMs) {
  const [spec, levels] = parse(address);
  if (!spec.brokers.includes(broker)) throw new Refusal("wrong_broker", "topic", address);
  if (retain && spec.lifecycle === "event") throw new Refusal("retained_event", "topic", address);
  fit(spec, payload);
  const message = decode(payload);
  const { meta } = message;
  if (!names.includes(spec.name) || meta.contract !== spec.contract) {
    throw new Refusal("contract_not_allowed", "allow", `${meta.contract} is not taken here`);
  }
  conform(spec, message);
  if (meta.message_type !== meta.contract) throw new Refusal("contract_drift", "drift", meta.message_type);
  for (const [level, value] of Object.entries(levels)) {
    const stated = meta[level] ?? message.payload[level] ?? value;
    if (stated !== value) throw new Refusal("topic_mismatch", "agreement", `${level}: ${stated}`);
  }
  if (endsAt(meta, nowMs) <= nowMs) throw new Refusal("expired", "expiry", "too old to act on");
  return { name: spec.name, levels, message };
}

/** When a message was made; one whose sender has no clock counts from `receivedMs`. */
export function madeAt(meta, receivedMs) {
  if (meta.produced_at) return Date.parse(meta.produced_at);
  return meta.clk === "none" ? receivedMs : meta.t_ms;
}

/** The name in an issued certificate, and `join(will)`: a connected client of the broker at `url`. */
export function identity(url, folder) {
  const [ca, cert, key] = ["ca", "cert", "key"].map((name) => readFileSync(`${folder}/${name}.pem`));
  const name = /^CN=(.+)$/m.exec(new X509Certificate(cert).subject)[1];
  return joining(url, { ca, cert, key, clientId: name });
}

/** The same where a broker asks nobody who he is, as only a benchmark's does. */
export const anonymous = (url, name) => joining(url, { clientId: name });

function joining(url, given) {
  const options = { ...given, protocolVersion: 5, keepalive: 10, reconnectPeriod: 0 };
  return { name: given.clientId, join: (will) => mqtt.connectAsync(url, { ...options, will }, false) };
}

function encodeLevel(text) {
  const byte = (code) => `%${code.toString(16).toUpperCase().padStart(2, "0")}`;
  return text.replace(/[^A-Za-z0-9_:-]/gu, (letter) => [...Buffer.from(letter)].map(byte).join(""));
}

function decodeLevel(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Refusal("unknown_topic", "topic", `${text} is not UTF-8`);
  }
}

function parse(address) {
  const found = patterns.find(([pattern]) => pattern.test(address));
  if (!found) throw new Refusal("unknown_topic", "topic", address);
  const levels = Object.entries(found[0].exec(address).groups);
  return [found[1], Object.fromEntries(levels.map(([name, text]) => [name, decodeLevel(text)]))];
}

function decode(bytes) {
  let message;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    message = JSON.parse(text);
    refuseLossy(text);
  } catch (error) {
    throw new Refusal("decode_error", "decode", error.message);
  }
  if (!message?.meta) throw new Refusal("schema_invalid", "schema", "a message has meta and payload");
  return message;
}

// JSON.parse keeps the last of two equal keys and rounds what a double cannot hold; both are errors here.
function refuseLossy(text) {
  const keys = [];
  const tokens = text.matchAll(/(?<string>"(?:[^"\\]|\\.)*")(?<colon>\s*:)?|[{}]|(?<number>-?\d[\d.eE+-]*)/g);
  for (const { 0: token, groups } of tokens) {
    if (token === "{") keys.push(new Set());
    if (token === "}") keys.pop();
    const name = groups.colon && JSON.parse(groups.string);
    if (keys.at(-1)?.has(name)) throw new SyntaxError(`${token} stands twice`);
    if (groups.colon) keys.at(-1).add(name);
    const value = groups.number ? Number(token) : 0;
    if (!Number.isFinite(value) || (/^-?\d+$/.test(token) && !Number.isSafeInteger(value))) {
      throw new SyntaxError(`${token} is beyond what a number holds`);
    }
  }
}

function fit(spec, bytes) {
  if (bytes.length > spec.max_bytes) throw new Refusal("oversize", "size", `${bytes.length} bytes`);
}

function conform(spec, message) {
  const validate = ajv.getSchema(`nervus:contracts/${spec.contract}`);
  if (!validate(message)) throw new Refusal("schema_invalid", "schema", ajv.errorsText(validate.errors));
}

function endsAt(meta, nowMs) {
  if (meta.expires_at) return Date.parse(meta.expires_at);
  return meta.ttl_ms === undefined ? Infinity : madeAt(meta, nowMs) + meta.ttl_ms;
}
